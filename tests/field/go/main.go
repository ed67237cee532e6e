// A launcher in Go as most are written: it runs its child, and leaves signals to the runtime's default.
package main

import (
	"os"
	"os/exec"
)

func main() {
	child := exec.Command(os.Args[1], os.Args[2:]...)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	_ = child.Run()
	os.Exit(child.ProcessState.ExitCode())
}
