"""The launchers, the commands of the wheels for Linux: no signal is lost; they find package and interpreter."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

from tests.support import launcher, locales
from tests.support.init import NAMESPACE, clean_environment, until
from tests.support.launcher import VERSION
from tests.support.proc import IDLE, environment, signals_in_mask, wait_for_agent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.conftest import Start
    from tests.support.init import Init

NEWLY_STARTED = 40  # milliseconds after the exec at which a stop request comes, at most
NOWHERE = "/nonexistent"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """The command of a virtual environment."""
    return launcher.virtual_environment(tmp_path / "venv")


def arguments(init: Init) -> list[str]:
    return Path(f"/proc/{init.pid}/cmdline").read_bytes().decode().split("\0")[:-1]


def interpreters_environment(path: str = NOWHERE, **variables: str) -> dict[str, str]:
    """A clean environment in whose PATH only `path` may have an interpreter."""
    return clean_environment(PATH=path, **variables)


def stop(init: Init) -> None:
    wait_for_agent(init)
    init.signal("TERM")
    assert init.wait() == 143, init.stderr
    assert init.lines("stop requested by TERM")


# --- Signals. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(4))
def test_no_stop_request_is_lost_once_the_launcher_runs(start: Start, venv: Path, part: int) -> None:
    """Once the launcher has blocked signals: from its first statement on, through both execs, whenever that is."""
    for delay in range(part, NEWLY_STARTED, 4):
        init = start("-t", "20s", command=["--", *IDLE], program=[str(venv)], stdout=subprocess.DEVNULL)
        # unshare(1) blocks TERM for a moment too, but not USR1.
        until(lambda: {"TERM", "USR1"} <= signals_in_mask(init.pid, "SigBlk"), "blocked signals")  # noqa: B023
        moment = time.monotonic() + delay / 1000
        while time.monotonic() < moment:
            continue
        init.signal("TERM")
        assert init.wait() == 143, (delay, init.stderr)
        assert len(init.lines("stop requested by TERM")) == 1


def test_its_first_system_call_blocks_every_signal(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    subprocess.run(
        [strace, "-o", trace, launcher.launcher()], env=interpreters_environment(), timeout=60, capture_output=True
    )
    execve, first, *rest = trace.read_text().splitlines()
    assert execve.startswith("execve(")
    # All but the two that the C library keeps for itself (signal(7), nptl(7)): Python warns of those.
    assert first == "rt_sigprocmask(SIG_BLOCK, ~[RTMIN RT_1], NULL, 8) = 0"
    assert rest[0] == "signalfd4(-1, ~[RTMIN RT_1], 8, SFD_NONBLOCK) = 3"
    assert not [line for line in rest if "rt_sig" in line]


# --- The process that it becomes. -------------------------------------------------------------------------------------


def test_it_is_one_isolated_interpreter_with_the_name_agent_init(start_in_role: Start, venv: Path) -> None:
    init = start_in_role(command=["--", *IDLE], program=[str(venv)])
    wait_for_agent(init)
    assert Path(f"/proc/{init.pid}/comm").read_text() == "agent-init\n"
    script = f"{venv.parent}/../lib/{VERSION}/site-packages/entrypoint/__main__.py"
    options = ["-I", "-S", "-X", "utf8", "-X", "signalfd=3"]
    assert arguments(init) == [f"{venv.parent}/{VERSION}", *options, script, "--", *IDLE]
    stop(init)


def kinds(pid: int) -> list[str]:
    """What the open descriptors of a process are; without those that it closes meanwhile."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(fd))
    return found


@pytest.mark.parametrize(
    ("before", "number"),
    [
        ("", 3),
        ("exec 3</dev/null 4</dev/null", 5),
        ("exec <&-", None),  # else it would be the agent's stdin
        ("exec 2>&-", None),
        ("for fd in 3 4 5 6 7 8 9; do eval exec $fd'</dev/null'; done", None),
        ("ulimit -n 31", None),  # others need it more
        ("ulimit -n 32", 3),
    ],
)
def test_the_signalfd_is_the_launchers_and_the_agent_does_not_inherit_it(
    start_in_role: Start, venv: Path, before: str, number: int | None
) -> None:
    program = ["sh", "-c", f'{before}\nexec "$@"', "sh", str(venv)]
    init = start_in_role(command=["--", *IDLE], program=program)
    agent = wait_for_agent(init)
    options = [word for word in arguments(init) if word.startswith("signalfd=")]
    assert options == ([f"signalfd={number}"] if number else [])
    init.wait_for(lambda: kinds(init.pid).count("anon_inode:[signalfd]") == 1, "the signalfd")
    assert "anon_inode:[signalfd]" not in kinds(agent)
    if number:
        assert os.readlink(f"/proc/{init.pid}/fd/{number}") == "anon_inode:[signalfd]"
    init.signal("TERM")
    assert init.wait() == 143


@pytest.mark.parametrize("descriptors", [4, 5, 6])
def test_with_few_descriptors_the_agent_is_started_and_stopped(start: Start, venv: Path, descriptors: int) -> None:
    program = ["prlimit", f"--nofile={descriptors}", str(venv)]
    init = start("-t", "20s", command=["--", *IDLE], program=program)
    wait_for_agent(init)
    init.signal("TERM")
    assert init.wait() == 143


@pytest.mark.parametrize("other", ["</dev/null", "</etc/passwd", ">/dev/null", ">&-"])
def test_an_interpreter_that_is_a_script_may_have_another_file_in_place_of_the_signalfd(
    start: Start, tmp_path: Path, other: str
) -> None:
    command = launcher.prefix(tmp_path / "usr")
    (tmp_path / "shims").mkdir()
    shim = tmp_path / "shims" / VERSION
    shim.write_text(f'#!/bin/bash\nexec 3{other}\nexec {sys.executable} "$@"\n')
    shim.chmod(0o755)
    agent = f"PATH=/usr/bin:/bin; readlink /proc/self/fd/3 >{tmp_path}/third; exec sleep 300"
    program = ["env", f"PATH={shim.parent}", str(command)]
    init = start(command=["--", "/bin/sh", "-c", agent], program=program)
    wait_for_agent(init)
    assert "signalfd=3" in arguments(init)
    file = other.strip("<>")
    assert (tmp_path / "third").read_text().strip() == ("" if file == "&-" else file)
    init.signal("TERM")
    assert init.wait() == 143
    assert init.lines("stop requested by TERM")


def test_with_a_terminal_nothing_else_is_printed_and_the_agent_has_no_blocked_signals(venv: Path) -> None:
    """As for `docker run -it`: to give the terminal to the agent, process 1 changes its signal mask twice."""
    command = [*NAMESPACE, str(venv), "-q", "--", "grep", "SigBlk", "/proc/self/status"]
    child = pexpect.spawn(command[0], command[1:], env=clean_environment(), encoding="utf-8", timeout=30)
    try:
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert (child.before or "").split() == ["SigBlk:", "0" * 16]


@pytest.mark.parametrize("encoding", locales.ENCODINGS)
def test_arguments_reach_the_agent_as_they_are_in_any_locale(tmp_path: Path, venv: Path, encoding: str) -> None:
    env = clean_environment(**locales.locale(tmp_path, encoding))
    command = [str(venv), "-q", "--", "printf", "%s\n", *locales.WORDS]
    ran = subprocess.run(command, env=env, capture_output=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.splitlines() == [*map(os.fsencode, locales.WORDS)]


INJECTED = """
import subprocess, threading, time
open({mark!r}, "w").close()
subprocess.Popen(["sleep", "60"])
threading.Thread(target=time.sleep, args=(60,)).start()
"""
VARIABLES = {
    "PYTHONHOME": "/opt/python",
    "PYTHON_GIL": "0",
    "PYTHONMALLOC": "of a later release",
    "PYTHONHASHSEED": "of a later release",
    "PYTHONUTF8": "of a later release",
    "PYTHONINTMAXSTRDIGITS": "-1",
    "PYTHONTRACEMALLOC": "of a later release",
    "PYTHONIOENCODING": "none:none",
    "PYTHONPLATLIBDIR": "nowhere",
    "PYTHONWARNINGS": "error",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@pytest.mark.parametrize("names", [*([name] for name in VARIABLES), [*VARIABLES]], ids=[*VARIABLES, "all"])
def test_python_variables_of_the_agent_do_not_touch_process_1(start: Start, venv: Path, names: list[str]) -> None:
    env = clean_environment(**{name: VARIABLES[name] for name in names})
    init = start("--no-notify", command=["--", *IDLE], program=[str(venv)], env=env)
    assert environment(wait_for_agent(init)) == environment(init.outer.pid)
    stop(init)
    assert all("agent-init: " in line for line in init.stderr.splitlines())


def test_start_up_code_in_pythonpath_does_not_run_in_process_1(
    start_in_role: Start, tmp_path: Path, venv: Path
) -> None:
    mark = tmp_path / "loaded"
    for folder in (tmp_path / "app", venv.parents[1] / "lib" / VERSION / "site-packages"):
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(INJECTED.format(mark=str(mark)))
        (folder / "hook.pth").write_text("import sitecustomize\n")
    init = start_in_role(
        command=["--", *IDLE], program=[str(venv)], env=clean_environment(PYTHONPATH=str(tmp_path / "app"))
    )
    stop(init)
    assert not mark.exists()


def next_report(init: Init) -> str:
    """Request a report by a signal; return its first line."""
    known = len(init.lines("report: "))
    init.signal("USR2")
    return str(init.wait_for(lambda: init.lines("report: ")[known:], "a report")[0])


def test_the_report_is_made_by_the_same_interpreter(start: Start, venv: Path) -> None:
    """And finds psutil beside the package."""
    import psutil

    shutil.copytree(Path(psutil.__file__).parent, venv.parents[1] / "lib" / VERSION / "site-packages" / "psutil")
    init = start("--report-on", "USR2", agent="on('TERM', lambda: leave(0)); ready()", program=[str(venv)])
    init.wait_for_event("ready")
    assert any("MiB" in next_report(init) for _ in range(10))  # on a busy machine one may be cut off
    init.signal("TERM")
    assert init.wait() == 0


NO_PROC = 'mount -t tmpfs none /proc && exec "$@"'


def test_without_proc_it_starts_and_has_its_name(tmp_path: Path, venv: Path) -> None:
    """Through a link, which takes no /proc either. The agent mounts it again, to look."""
    if os.getuid() != 0:
        pytest.skip("mounting takes root")
    (tmp_path / "link").symlink_to(venv)
    agent = "umount /proc && mount -t proc proc /proc && cat /proc/1/comm && echo $LC_CTYPE. && exit 3"
    command = ["sh", "-c", NO_PROC, "sh", str(tmp_path / "link"), "--", "sh", "-c", agent]
    env = {"PATH": os.environ["PATH"]}  # in the C locale the interpreter sets a variable
    ran = subprocess.run([*NAMESPACE[:-1], "--mount", *command], env=env, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (3, "agent-init\n.\n"), ran.stderr


def test_in_a_root_with_an_interpreter_and_nothing_else(tmp_path: Path) -> None:
    """As in a distroless image: no shell, no env, no PATH; installed by `pip install --target`."""
    if os.getuid() != 0:
        pytest.skip("chroot(2) takes root")
    root = tmp_path / "root"
    launcher.install(root / "app" / "lib" / "bin", root / "app" / "lib")
    for folder in ("usr/local", "proc"):
        (root / folder).mkdir(parents=True)
    base = sys.base_prefix  # with the libraries that the interpreter takes, and the directory that it was built for
    bind = "".join(
        f"mkdir -p {root}{path} && mount --rbind {path} {root}{path} && "
        for path in dict.fromkeys([base, "/lib", "/lib64", "/usr/lib"])
        if Path(path).exists()
    )
    code = "import os, sys; print(open('/proc/1/comm').read(), os.listdir('/app'), end=''); sys.exit(3)"
    (root / "usr" / "bin").mkdir()
    (root / "usr" / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    script = f'{bind} mount -t proc proc {root}/proc && exec env -i "$@"'
    program = [str(shutil.which("chroot")), str(root), "/app/lib/bin/agent-init", "--"]
    command = ["sh", "-c", script, "sh", *program, "/usr/bin/python3", "-c", code]
    ran = subprocess.run([*NAMESPACE[:-1], "--mount", *command], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (3, "agent-init\n ['lib']"), ran.stderr


# --- Where the interpreter and the package are. -----------------------------------------------------------------------


def test_in_a_virtual_environment_that_was_moved(start: Start, tmp_path: Path, venv: Path) -> None:
    moved = venv.parents[1].rename(tmp_path / "moved")
    init = start(
        command=["--", *IDLE], program=[str(moved / "bin" / "agent-init")], env=interpreters_environment(os.defpath)
    )
    wait_for_agent(init)
    assert arguments(init)[0] == f"{moved}/bin/{VERSION}"
    stop(init)


def through_a_link_to_the_environment(tmp_path: Path, venv: Path) -> Path:
    (tmp_path / "link").symlink_to(venv.parents[1])
    return tmp_path / "link" / "bin" / "agent-init"


def through_a_link_to_the_commands(tmp_path: Path, venv: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "bin").symlink_to(venv.parent)
    return tmp_path / "elsewhere" / "bin" / "agent-init"


def through_a_link_as_uv_tool_makes_it(tmp_path: Path, venv: Path) -> Path:
    (tmp_path / "local" / "bin").mkdir(parents=True)
    (tmp_path / "local" / "bin" / "agent-init").symlink_to(venv)
    return tmp_path / "local" / "bin" / "agent-init"


def through_relative_links(tmp_path: Path, venv: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "first").symlink_to("../second")
    (tmp_path / "second").symlink_to("bin/third")
    (tmp_path / "bin" / "third").symlink_to(f"../venv/bin/{venv.name}")
    return tmp_path / "bin" / "first"


def linked_into_the_environment(tmp_path: Path, venv: Path) -> Path:
    """The file lies in a cache, as `uv --link-mode symlink` has it."""
    (tmp_path / "cache").mkdir()
    venv.rename(tmp_path / "cache" / "agent-init")
    venv.symlink_to(tmp_path / "cache" / "agent-init")
    return venv


LINKS = (
    through_a_link_to_the_environment,
    through_a_link_to_the_commands,
    through_a_link_as_uv_tool_makes_it,
    through_relative_links,
    linked_into_the_environment,
)


@pytest.mark.parametrize("link", LINKS)
def test_in_a_virtual_environment_behind_links(
    start: Start, tmp_path: Path, venv: Path, link: Callable[[Path, Path], Path]
) -> None:
    program = link(tmp_path, venv)
    init = start(command=["--", *IDLE], program=[str(program)], env=interpreters_environment(os.defpath))
    wait_for_agent(init)
    assert os.path.basename(arguments(init)[0]) == VERSION
    assert os.path.realpath(os.path.dirname(arguments(init)[0])) == str(venv.parent)
    stop(init)


def test_by_a_path_with_two_slashes(start: Start, tmp_path: Path, venv: Path) -> None:
    """As a shell makes it for `PATH=/venv/bin/`. The file itself is elsewhere."""
    linked_into_the_environment(tmp_path, venv)
    init = start(command=["--", *IDLE], program=[f"{venv.parent}//{venv.name}"], env=interpreters_environment("/bin"))
    stop(init)


@pytest.mark.parametrize("word", ["agent-init", "./agent-init", "../bin/agent-init", "../../venv/bin/agent-init"])
def test_by_a_relative_path(start: Start, venv: Path, word: str) -> None:
    """`agent-init` alone is a path here: nothing searches PATH."""
    code = f"import os, sys; os.execv({word!r}, [{word!r}, *sys.argv[1:]])"
    init = start(command=["--", *IDLE], program=[sys.executable, "-c", code], cwd=venv.parent)
    stop(init)


def test_behind_a_shebang(tmp_path: Path, venv: Path) -> None:
    """Then the path that the kernel passes on is the script's."""
    script = tmp_path / "script"
    script.write_text(f"#!{venv} --version\n")
    script.chmod(0o755)
    assert run(script).stdout.startswith("agent-init ")


LAYOUTS = {
    "--prefix, --user": ("lib", "site-packages"),
    "Debian": ("lib", "dist-packages"),
    "Fedora": ("lib64", "site-packages"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_the_interpreter_on_the_path(start: Start, tmp_path: Path, layout: str) -> None:
    """The version is that of the library; entries of PATH that are not absolute do not count."""
    library, kind = LAYOUTS[layout]
    command = launcher.prefix(tmp_path / "usr", kind, library)
    python = launcher.interpreter(tmp_path / "python")
    for name in ("python3", "python", "python3.99"):
        (tmp_path / "python" / name).symlink_to("/bin/false")
    env = interpreters_environment(f"relative::{NOWHERE}:{python.parent}:/usr/bin")
    init = start(command=["--", *IDLE], program=[str(command)], env={**env, "IDLE": "1"})
    wait_for_agent(init)
    assert arguments(init)[0] == str(python)
    stop(init)


def test_a_package_of_debians_own(start: Start, tmp_path: Path) -> None:
    """They are in a directory without a version, for every python3."""
    command = launcher.prefix(tmp_path / "usr", "dist-packages", version="python3")
    python = launcher.interpreter(command.parent, "python3")
    init = start(command=["--", *IDLE], program=[str(command)], env=interpreters_environment("/bin"))
    wait_for_agent(init)
    assert arguments(init)[0] == str(python)
    stop(init)


def test_a_package_of_the_agent_with_the_same_name_is_not_taken(start: Start, tmp_path: Path, venv: Path) -> None:
    for folder in (tmp_path / "app", tmp_path / "app" / "lib" / VERSION / "site-packages"):
        (folder / "entrypoint").mkdir(parents=True)
        for name in ("__init__.py", "__main__.py", "start.py"):
            (folder / "entrypoint" / name).write_text("raise SystemExit('of the agent')")
    (tmp_path / "app" / "bin").mkdir()
    (tmp_path / "app" / "bin" / "agent-init").symlink_to(venv)
    launcher.interpreter(tmp_path / "app" / "bin")
    init = start(
        command=["--", *IDLE], program=[f"{tmp_path}/app/bin/agent-init"], env=interpreters_environment("/bin")
    )
    stop(init)


def test_pip_install_target(start: Start, tmp_path: Path) -> None:
    command = launcher.install(tmp_path / "layer" / "bin", tmp_path / "layer")
    python = launcher.interpreter(tmp_path / "python", "python3")
    init = start(command=["--", *IDLE], program=[str(command)], env=interpreters_environment(f"{python.parent}:/bin"))
    wait_for_agent(init)
    assert arguments(init)[0] == str(python)
    stop(init)


def test_a_layer_runs_the_version_that_its_path_names(start: Start, tmp_path: Path) -> None:
    """As /opt/python/lib/python3.N/site-packages: another `python3` may be first on PATH."""
    layer = tmp_path / "layer" / VERSION / "site-packages"
    command = launcher.install(layer / "bin", layer)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "python3").write_text("#!/bin/sh\nexit 99\n")
    (tmp_path / "old" / "python3").chmod(0o755)
    python = launcher.interpreter(tmp_path / "new")
    env = interpreters_environment(f"{tmp_path}/old:{tmp_path}/new:/bin")
    init = start(command=["--", *IDLE], program=[str(command)], env=env)
    wait_for_agent(init)
    assert arguments(init)[0] == str(python)
    stop(init)
    python.unlink()  # then any python3
    assert run(command, "--", "true", path=f"{tmp_path}/old").returncode == 99


def test_another_interpreter_beside_it_is_the_last_choice(start: Start, tmp_path: Path) -> None:
    command = launcher.prefix(tmp_path / "usr", version="python3.98")
    python = launcher.interpreter(command.parent, "python3")
    init = start(command=["--", *IDLE], program=[str(command)], env=interpreters_environment("/bin"))
    wait_for_agent(init)
    assert arguments(init)[0] == str(python)
    stop(init)


def test_of_several_versions_the_one_with_an_interpreter_beside_it_runs(start: Start, tmp_path: Path) -> None:
    command = launcher.prefix(tmp_path / "usr")
    for version in ("python3.10", "python3.98", "python3.99"):
        launcher.prefix(tmp_path / "usr", version=version)
    (command.parent / "python3.99").write_text("not a program")  # cannot be executed
    launcher.interpreter(command.parent)
    launcher.interpreter(tmp_path / "path", "python3.98")
    env = interpreters_environment(f"{tmp_path}/path:/bin")
    init = start(command=["--", *IDLE], program=[str(command)], env=env)
    wait_for_agent(init)
    assert arguments(init)[0] == f"{command.parent}/{VERSION}"
    stop(init)


def test_a_link_runs_the_installation_that_it_names(start: Start, tmp_path: Path) -> None:
    """As that of `uv tool install`, in a folder into which `pip install --user` has put another installation."""
    named, link = launcher.prefix(tmp_path / "tool"), launcher.prefix(tmp_path / "user")
    launcher.interpreter(named.parent)
    launcher.interpreter(tmp_path / "path")
    link.unlink()
    link.symlink_to(named)
    env = interpreters_environment(f"{tmp_path}/path:/bin")
    init = start(command=["--", *IDLE], program=[str(link)], env=env)
    wait_for_agent(init)
    assert arguments(init)[0] == f"{named.parent}/{VERSION}"
    stop(init)


@pytest.mark.parametrize("slash", ["", "/"])
def test_copied_to_another_place_it_finds_the_package_beside_a_directory_of_path(
    start: Start, tmp_path: Path, venv: Path, slash: str
) -> None:
    """As `COPY --from=builder /venv/bin/agent-init /sbin/` in a Dockerfile does."""
    copy = tmp_path / "sbin" / "agent-init"
    copy.parent.mkdir()
    shutil.copy(venv, copy)
    path = f"/bin:{venv.parent}{slash}"
    init = start(command=["--", *IDLE], program=[str(copy)], env=interpreters_environment(path))
    wait_for_agent(init)
    assert os.path.normpath(arguments(init)[0]) == f"{venv.parent}/{VERSION}"
    stop(init)


def run(*command: str | Path, path: str | None = NOWHERE) -> subprocess.CompletedProcess[str]:
    env = {} if path is None else {"PATH": path}
    return subprocess.run([*command], env=env, capture_output=True, text=True, timeout=60)


def test_without_an_interpreter_one_line_names_what_was_looked_for(tmp_path: Path) -> None:
    command = launcher.prefix(tmp_path / "usr")
    ran = run(command, "--", "true")
    assert (ran.returncode, ran.stdout) == (125, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"agent-init: error: cannot start: no Python for {command.parent}/../lib/{VERSION}/")
    for text in (f"neither {VERSION} nor python3 in {command.parent}/", f"no {VERSION} in PATH ({NOWHERE})", "install"):
        assert text in line


def test_without_the_package_one_line_names_where_it_was_looked_for(tmp_path: Path) -> None:
    command = Path(shutil.copy(launcher.launcher(), tmp_path / "agent-init"))
    ran = run(command, "--version")
    assert (ran.returncode, ran.stdout) == (125, "")
    (line,) = ran.stderr.splitlines()
    for text in (f"directory of {command},", NOWHERE, "pip"):
        assert text in line


def test_without_path_the_usual_directories_are_searched(tmp_path: Path) -> None:
    command = launcher.prefix(tmp_path / "usr", version="python3.98")
    assert "in PATH (/usr/local/bin:/usr/bin:/bin)" in run(command, path=None).stderr


OLD = f"""#!{sys.executable}
import runpy, sys
sys.version_info, sys.version = (3, 9, 2, "final", 0), "3.9.2 (default)"
sys.argv = sys.argv[7:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_an_older_python_is_named(tmp_path: Path) -> None:
    """As `python3` of Debian 11, after `pip install --target` with a later one."""
    command = launcher.install(tmp_path / "layer" / "bin", tmp_path / "layer")
    (command.parent / "python3").write_text(OLD)
    (command.parent / "python3").chmod(0o755)
    ran = run(command, "--", "true")
    assert (ran.returncode, ran.stdout) == (125, "")
    expected = f"it needs Python 3.11 or later, and {sys.executable} is Python 3.9.2"
    assert ran.stderr == f"agent-init: error: cannot start: {expected}\n"


def refused(command: Path, before: Sequence[str] = ()) -> str:
    """The one line with which the launcher ends."""
    before = [str(shutil.which(before[0])), *before[1:]] if before else []
    ran = run(*before, command)
    assert (ran.returncode, ran.stdout) == (125, "")
    (line,) = ran.stderr.splitlines()
    return line.removeprefix("agent-init: error: cannot start: ")


def test_an_interpreter_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    command = launcher.prefix(tmp_path / "usr")
    python = command.parent / VERSION
    python.write_text("text")
    assert refused(command).startswith(f"{python}: permission denied")
    python.chmod(0o755)
    assert refused(command).startswith(f"{python}: not a program for this machine; no Python for ")
    content = bytearray(Path(os.path.realpath(sys.executable)).read_bytes())
    at = content.index(b"/lib", 64, 4096)  # the name of its loader
    content[at : at + 4] = b"/LIB"
    python.write_bytes(content)
    assert refused(command).startswith(f"{python}: its loader is not there")
    python.write_text("#!/nowhere/python\n")
    assert refused(command).startswith(f"{python}: the interpreter that its first line names is not there")


def test_arguments_that_are_too_long_are_named(venv: Path) -> None:
    """With the path of the interpreter and the script they are longer than those of the launcher."""
    before = [str(shutil.which("prlimit")), "--stack=524288:524288"]  # a quarter of it is for arguments and environment
    for room in range(0, 1600, 40):
        env = {str(number): "x" * 1000 for number in range(128)} | {"LAST": "x" * room}
        ran = subprocess.run(
            [*before, venv, "--version"], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        if ran.returncode == 125:
            break
    assert "the arguments and the environment are too long; " in ran.stderr


def test_a_folder_that_may_not_be_looked_into_is_no_reason(tmp_path: Path) -> None:
    """As /root/.local/bin on the PATH of an image, for another user."""
    if os.getuid() != 0:
        pytest.skip("changing the user takes root")
    command = launcher.prefix(tmp_path / "usr")
    (tmp_path / "closed").mkdir(mode=0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)
    path = f"{tmp_path}/closed"
    other_user = [str(shutil.which("setpriv")), "--reuid=65534", "--regid=65534", "--clear-groups"]
    ran = run(*other_user, command, "--version", path=path)
    assert ran.returncode == 125
    assert ran.stderr.startswith("agent-init: error: cannot start: no Python for ")


def test_without_a_descriptor_that_is_named(venv: Path) -> None:
    assert ": too many open files; " in refused(venv, before=["prlimit", "--nofile=3:3"])


def test_a_package_of_another_user_is_named(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("changing the user takes root")
    with tempfile.TemporaryDirectory() as folder:  # that of the tests is root's alone
        Path(folder).chmod(0o755)
        command = launcher.virtual_environment(Path(folder, "venv"))
        script = Path(folder, "venv", "lib", VERSION, "site-packages", "entrypoint", "__main__.py")
        script.chmod(0o600)
        line = refused(command, before=["setpriv", "--reuid=65534", "--clear-groups", "--"])
        assert line.startswith(
            f"{command.parent}/../lib/{VERSION}/site-packages/entrypoint/__main__.py: permission denied"
        )


def test_it_leaves_no_descriptor_open(venv: Path) -> None:
    trace = venv.with_name("trace")
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("strace is not installed")
    command = [strace, "-o", str(trace), str(venv), "--version"]
    subprocess.run(command, env=interpreters_environment(), timeout=60, capture_output=True)
    before = trace.read_text().partition(f'execve("{venv.parent}/{VERSION}"')[0]
    opened = [
        line for line in before.splitlines() if line.startswith(("open", "fcntl(3, F_DUPFD")) and "= -1" not in line
    ]
    closed = [line for line in before.splitlines() if line.startswith("close(") and "= -1" not in line]
    assert len(opened) == len(closed) > 0


def test_a_script_is_the_last_choice(start: Start, tmp_path: Path) -> None:
    """As pyenv's, which are first on PATH: they change the environment, or find no Python of that version."""
    command = launcher.prefix(tmp_path / "usr")
    (tmp_path / "shims").mkdir()
    for name in (VERSION, "python3"):
        (tmp_path / "shims" / name).write_text("#!/bin/sh\nexit 99\n")
        (tmp_path / "shims" / name).chmod(0o755)
    python = launcher.interpreter(tmp_path / "python")
    path = f"{tmp_path}/shims:{python.parent}"
    init = start(command=["--", *IDLE], program=[str(command)], env=interpreters_environment(path + ":/bin"))
    wait_for_agent(init)
    assert arguments(init)[0] == str(python)
    stop(init)
    python.unlink()
    assert run(command, "--", "true", path=path).returncode == 99


OLDER = [
    str(path)
    for path in (
        *(Path(f"/usr/bin/python3.{minor}") for minor in range(6, 11)),
        *Path("~/.pyenv/versions").expanduser().glob("3.[6-9].*/bin/python3"),
        *Path("~/.pyenv/versions").expanduser().glob("3.10.*/bin/python3"),
    )
    if path.exists()
]
COMMANDS = ("agent-init", "agent-initctl")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("older", OLDER or [None])
def test_on_an_older_python_a_later_one_of_path_runs(tmp_path: Path, older: str | None, name: str) -> None:
    """As on UBI 9. The environment stays as it is, though the older interpreter changes its own (PEP 538)."""
    if older is None:
        pytest.skip("there is no older Python")
    command = launcher.install(tmp_path / "layer" / "bin", tmp_path / "layer").with_name(name)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "python3").symlink_to(os.path.realpath(older))
    ran = run(command, "--version", path=f"{tmp_path}/path")
    assert (ran.returncode, ran.stdout) == (125, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(
        f"{name}: error: cannot start: it needs Python 3.11 or later, and {tmp_path}/path/python3 is "
    )

    (tmp_path / "path" / "python3.15").write_text("#!/bin/sh\nexit 127\n")  # as pyenv's, which may run none
    (tmp_path / "path" / "python3.15").chmod(0o755)
    python = launcher.interpreter(tmp_path / "later")
    if name == "agent-initctl":
        ran = run(command, "live", "--no-such", path=f"{tmp_path}/path:{python.parent}")
        assert "cannot start" not in ran.stderr
        return
    path = f"{tmp_path}/path:relative:{python.parent}"
    ran = run(command, "-q", "--no-notify", "--", "/usr/bin/env", "-u", "ä", path=path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"PATH={path}\n", "")
    look = "IFS= read -r words </proc/$PPID/cmdline; readlink /proc/$PPID/fd/3; echo $words"
    ran = run(command, "-q", "--no-notify", "--", "/bin/bash", "-c", look, path=f"{path}:/bin")
    signalfd, words = ran.stdout.splitlines()  # bash leaves out the zeros between the words
    assert signalfd == "anon_inode:[signalfd]"
    assert "-Xutf8-Xsignalfd=3" in words


def test_on_an_older_python_by_a_later_name_it_does_not_start_over_for_ever(tmp_path: Path) -> None:
    if not OLDER:
        pytest.skip("there is no older Python")
    command = launcher.install(tmp_path / "bin", tmp_path)
    for name in ("python3", "python3.13", "python3.12"):
        (command.parent / name).symlink_to(os.path.realpath(OLDER[0]))
    ran = run(command, "--", "true", path=str(command.parent))
    assert ran.returncode == 125
    assert f"and {command.parent}/python3.12 is Python 3." in ran.stderr


HALF_COPIED = {
    "agent-init": ("__main__.py", "first.py", "start.py", "settings.py", "options.py", "init/own_process.py"),
    "agent-initctl": ("ctl/__main__.py", "ctl/main.py", "ctl/connection.py", "ctl/probes.py", "control.py"),
}


@pytest.mark.parametrize(("name", "file"), [(name, file) for name in COMMANDS for file in HALF_COPIED[name]])
@pytest.mark.parametrize("trouble", ["missing", "cut off"])
def test_a_package_that_was_copied_in_part_is_one_line(tmp_path: Path, name: str, file: str, trouble: str) -> None:
    command = launcher.virtual_environment(tmp_path / "venv").with_name(name)
    package = tmp_path / "venv" / "lib" / VERSION / "site-packages" / "entrypoint"
    for cache in [*package.rglob("__pycache__")]:
        shutil.rmtree(cache)
    (package / file).unlink()
    if trouble == "cut off" and Path(file).name != "__main__.py":  # which the interpreter itself refuses
        (package / file).write_text("import (")
    ran = run(command, *(["live"] if name == "agent-initctl" else ["--", "true"]))
    assert (ran.returncode, ran.stdout) == (125, ""), ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"{name}: ")
    assert Path(file).stem in line


def test_without_arguments_it_starts(venv: Path) -> None:
    """Without argv[0] too: argc is 0 then, or 1 from Linux 5.18 on."""
    code = "import ctypes, sys; ctypes.CDLL(None).execve(sys.argv[1].encode(), (ctypes.c_char_p * 1)(), None)"
    ran = run(sys.executable, "-c", code, venv)
    assert ran.returncode == 125
    assert ran.stderr.startswith("agent-init: no command given")


def test_paths_that_are_too_long_are_not_cut_off(tmp_path: Path) -> None:
    command = launcher.prefix(tmp_path / "usr")
    ran = run(command, path=":".join(["/" + "x" * 4090, "/" + "y" * 5000, "relative", ""]))
    assert ran.returncode == 125
    assert len(ran.stderr.splitlines()) == 1


# --- agent-initctl, the same program but for signals. -----------------------------------------------------------------


def test_agent_initctl_makes_no_signal_call_and_is_one_isolated_interpreter(tmp_path: Path, venv: Path) -> None:
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    command = [strace, "-s200", "-etrace=execve,rt_sigprocmask", f"-o{trace}", str(venv.with_name("agent-initctl"))]
    subprocess.run([*command, "ready"], env=interpreters_environment(), timeout=60, capture_output=True)
    first, second, *_ = trace.read_text().splitlines()
    assert first.startswith(f'execve("{venv.parent}/agent-initctl"')
    script = f"{venv.parent}/../lib/{VERSION}/site-packages/entrypoint/ctl/__main__.py"
    python = f"{venv.parent}/{VERSION}"
    assert second.startswith(f'execve("{python}", ["{python}", "-I", "-S", "-X", "utf8", "{script}", "ready"]')


def test_agent_initctl_takes_no_code_of_the_container(start: Start, tmp_path: Path, venv: Path) -> None:
    app, mark = tmp_path / "app", tmp_path / "loaded"
    (app / "entrypoint").mkdir(parents=True)
    for name in ("sitecustomize.py", "entrypoint/__init__.py"):
        (app / name).write_text(f"open({str(mark)!r}, 'w').close()\n")
    init = start(command=["--", *IDLE], program=[str(venv)])
    wait_for_agent(init)
    ran = control(init, venv, PYTHONPATH=str(app), PYTHONHOME="/opt/python")
    assert (ran.returncode, ran.stdout) == (0, "no hang detected; starting\n"), ran.stderr
    assert not mark.exists()
    stop(init)


def control(init: Init, command: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Ask whether it is live, by the agent-initctl beside that agent-init, from within its PID namespace."""
    enter = ["nsenter", f"--target={init.pid}", "--pid", "--mount", "--"]
    return subprocess.run(
        [*enter, command.with_name("agent-initctl"), "live"],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
