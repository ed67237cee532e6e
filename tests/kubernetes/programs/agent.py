"""An agent with one call in hand: it drains after its first TERM, and loses the call at a second one.

Lines on stdout: `ready`, `got TERM` for each signal, `drained` before it exits, `lost` if it quits instead.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time

EATER = "hoard = []\nwhile True: hoard.append(bytes(1_000_000))"


def print_line(line: str) -> None:
    """Print a line with one write, so that a signal handler may call this."""
    os.write(1, f"{line}\n".encode())


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--drain", type=float, default=1.0, help="seconds from the first TERM to the exit")
    parser.add_argument("--code", type=int, default=0, help="exit code after the drain")
    parser.add_argument("--on-term", choices=("drain", "ignore", "die"), default="drain")
    parser.add_argument("--exit-after", type=float, help="seconds until it exits by itself")
    parser.add_argument("--leave-child", type=float, help="leave a child behind that drains for these seconds")
    parser.add_argument("--eat", choices=("agent", "child"), help="who uses up the memory")
    parser.add_argument("--unready", action="store_true", help="serve /ready with 503")
    parser.add_argument("--hang", type=float, help="serve /live for these seconds only")
    parser.add_argument("--http", type=int, help="the port for /ready, /live and /call")
    parser.add_argument("--message", help="what to write to /dev/termination-log at the start")
    parser.add_argument("--crash", action="store_true", help="end with an exception")
    parser.add_argument("--notify", action="store_true", help="send READY=1")
    parser.add_argument("--ping", type=float, help="send WATCHDOG=1 for these seconds, then hang")
    parser.add_argument("--name", default="")
    options = parser.parse_args()
    prefix = f"{options.name}: " if options.name else ""
    terms: list[float] = []

    def handle(number: int, frame: object) -> None:
        print_line(f"{prefix}got {signal.Signals(number).name.removeprefix('SIG')}")
        if terms and options.on_term == "drain":
            print_line(f"{prefix}lost")
            os._exit(1)
        terms.append(time.monotonic())

    if options.on_term != "die":
        signal.signal(signal.SIGTERM, handle)
    if options.on_term == "ignore":  # a watchdog's signal too
        signal.signal(signal.SIGABRT, handle)
    if options.leave_child is not None:
        child = [sys.executable, __file__, "--name=child", f"--drain={options.leave_child}"]
        subprocess.Popen(child)
    started = time.monotonic()
    if options.message:
        with open("/dev/termination-log", "w") as file:
            file.write(options.message)
    if options.http:
        serve(options, terms, started)
    if options.notify:
        notify("READY=1")
    print_line(f"{prefix}ready")
    if options.eat == "child":
        print_line(f"child {subprocess.run([sys.executable, '-c', EATER]).returncode}")
        return int(options.code)
    if options.eat == "agent":
        exec(EATER, {})
    while True:
        time.sleep(0.02)
        now = time.monotonic()
        if options.ping is not None and now < started + options.ping:
            notify("WATCHDOG=1")
        if options.exit_after is not None and now > started + options.exit_after:
            break
        if terms and options.on_term == "drain" and now > terms[0] + options.drain:
            print_line(f"{prefix}drained")
            break
    if options.crash:
        raise RuntimeError("the agent's own bug")
    return int(options.code)


def notify(message: str) -> None:
    """Send a message of sd_notify(3)."""
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)


def serve(options: argparse.Namespace, terms: list[float], started: float) -> None:
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hangs = options.hang is not None and time.monotonic() > started + options.hang
            failed = (self.path == "/live" and hangs) or (self.path == "/ready" and (options.unready or bool(terms)))
            self.send_response(503 if failed else 200)
            self.end_headers()
            self.wfile.write(b"ok\n")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("0.0.0.0", options.http), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
