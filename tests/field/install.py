"""Get the wrappers: `python -m tests.field.install`.

Debian's packages are installed where they are missing. What PyPI, npm and Go provide goes into folders of the tests'
cache (see `tests/agents/environments.py`), one for each state of the lock files. It can be run again at any time, and
prints what it could not get.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.agents import environments

HERE = Path(__file__).parent
LOCKS = HERE / "locks"
NPM = HERE / "npm"
GO = HERE / "go"

# Never `busybox`: it replaces `busybox-static`, from which the tests' musl image is made.
DEBIAN = (
    "bash", "bubblewrap", "busybox-static", "catatonit", "coreutils", "cpulimit", "daemontools", "dash", "dbus-daemon",
    "dumb-init", "entr", "expect", "findutils", "firejail", "fish", "gdb", "gosu", "ksh", "make", "mksh", "moreutils",
    "parallel", "perl", "php-cli", "procps", "proot", "redis-server", "ruby", "runit", "strace", "sudo", "supervisor",
    "systemd", "time", "tini", "util-linux", "util-linux-extra", "xauth", "xvfb", "yash", "zsh",
)  # fmt: skip
# A machine may have these from elsewhere, so it is the program that counts.
DEBIAN_PROGRAMS = {"node": "nodejs", "npm": "npm", "go": "golang-go"}

TOOLS = (
    "circus==0.19.0", "coverage==7.17.4", "debugpy==1.8.22", "go-task-bin==3.54.0", "hatch==1.18.2", "honcho==2.0.0",
    "invoke==3.0.3", "memray==1.20.0", "nox==2026.10.20", "pdm==2.29.4", "pipenv==2026.10.3", "poetry==2.5.1",
    "py-spy==0.4.3", "python-dotenv[cli]==1.2.4", "uv==0.13.9", "watchdog==7.1.0", "watchfiles==1.3.0",
)  # fmt: skip
HELPERS = ("playwright==1.65.2", "uvloop==0.22.1")


def tools() -> Path:
    """The virtual environment with Python's wrappers."""
    return _folder("field-tools", LOCKS / "tools.txt", _interpreter())


def helpers() -> Path:
    """The virtual environment for agents with helpers."""
    return _folder("field-helpers", LOCKS / "helpers.txt", _interpreter())


def node_modules() -> Path:
    return _folder("field-npm", NPM / "package-lock.json") / "node_modules"


def go_program() -> Path:
    return _folder("field-go", GO / "main.go") / "launcher"


def _folder(name: str, source: Path, *more: str) -> Path:
    """Where that is kept: another folder for each state of what it is made from."""
    digest = hashlib.sha256(b"\0".join([source.read_bytes(), *(text.encode() for text in more)]))
    return environments.cache() / f"{name}-{digest.hexdigest()[:16]}"


def _interpreter() -> str:
    """The same for each name of one interpreter: `python -m pytest` and `pytest` must find the same environment."""
    return f"{sys.version} {os.path.realpath(sys.executable)}"


def _debian() -> None:
    state = subprocess.run(
        ["dpkg-query", "-W", "-f=${Package} ${Status}\n", *DEBIAN], capture_output=True, text=True
    ).stdout
    installed = {line.split()[0] for line in state.splitlines() if line.endswith("install ok installed")}
    missing = [package for package in DEBIAN if package not in installed]
    missing += [package for program, package in DEBIAN_PROGRAMS.items() if shutil.which(program) is None]
    if not missing:
        return
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=variables, stdout=subprocess.DEVNULL)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
    if subprocess.run([*install, *missing], env=variables, capture_output=True).returncode == 0:
        return
    for package in missing:  # one that cannot be had must not keep the others away
        done = subprocess.run([*install, package], env=variables, capture_output=True, text=True)
        if done.returncode:
            print(f"not installed: {package}: {done.stderr.strip().splitlines()[-1:]}")


def _python(folder: Path, lock: Path) -> None:
    with environments._made_once(folder) as missing:
        if missing:
            environments._uv("venv", "--python", sys.executable, str(folder))
            environments._uv("pip", "sync", "--python", str(folder / "bin" / "python"), str(lock))


def _npm() -> None:
    folder = node_modules().parent
    with environments._made_once(folder) as missing:
        if missing:
            folder.mkdir(parents=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(NPM / name, folder)
            # Not `npm ci`: it insists on lines for all platforms of an optional dependency, also where there are none.
            environments._run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund"])


def _go() -> None:
    program = go_program()
    with environments._made_once(program.parent) as missing:
        if missing:
            program.parent.mkdir(parents=True)
            environments._run(["go", "build", "-o", str(program), str(GO / "main.go")])


def _write_locks() -> None:
    for name, wanted in (("tools", TOOLS), ("helpers", HELPERS)):
        source = LOCKS / f"{name}.in"
        source.write_text("".join(f"{requirement}\n" for requirement in wanted))
        try:
            environments._uv("pip", "compile", "--universal", "--python-version", "3.11", "--no-header",
                             "--no-annotate", "--output-file", str(LOCKS / f"{name}.txt"), str(source))  # fmt: skip
        finally:
            source.unlink()


def main() -> int:
    if sys.argv[1:] == ["--locks"]:
        _write_locks()
        return 0
    failed = 0
    steps = {
        "Debian": _debian,
        "PyPI": lambda: _python(tools(), LOCKS / "tools.txt"),
        "PyPI, for the helpers": lambda: _python(helpers(), LOCKS / "helpers.txt"),
        "npm": _npm,
        "Go": _go,
    }
    for name, step in steps.items():
        try:
            step()
        except (OSError, RuntimeError) as error:
            print(f"not installed from {name}: {str(error)[:2000]}")
            failed += 1
    from tests.field import trials

    for name, trial in {**trials.WRAPPED, **trials.ALL}.items():
        if program := trial.missing():
            print(f"missing: {program}, for {name}")
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
