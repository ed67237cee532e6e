"""Process 1 loads none of the container's Python modules, and of its own only what it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from tests.support import locales
from tests.support.init import clean_environment, until
from tests.support.proc import IDLE, environment, signals_in_mask, status, wait_for_agent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.conftest import Start
    from tests.support.init import Init

PACKAGE = Path(__file__).parents[2] / "entrypoint"

# Names of the standard library, of dependencies and of agent-init itself; real agents have files of these names.
HOSTILE = (
    "signal select os sys enum errno stat time io abc codecs posixpath json logging typing re asyncio click psutil "
    "uvloop entrypoint options init _json _ctypes _socket _thread console process loop"
).split()

# It waits until each runs: CPython 3.11 frees a new thread's arguments by another allocator, and aborts, if its main
# thread goes on at that moment in development mode (once in 3,000 starts).
STARTS_THREADS = """
import _thread, os, time
running = []
def sleep():
    running.append(1)
    time.sleep(1000)
for _ in range(3):
    _thread.start_new_thread(sleep, ())
while len(running) < 3:
    time.sleep(0.001)
os.environ["SET_BY_SITE"] = "1"
os.environ.pop("LAST", None)
"""


def write_modules(directory: Path, mark: Path, names: Iterable[str] = HOSTILE, site: str = "") -> Path:
    """Write modules that record their import in `mark` and then fail, and a sitecustomize that runs `site`."""
    directory.mkdir(exist_ok=True)
    log_import = f"with open({str(mark)!r}, 'a') as file: file.write(__name__ + '\\n')\n"
    for name in names:
        (directory / f"{name}.py").write_text(f"{log_import}raise ImportError('{name} of the container was loaded')\n")
    if site:
        (directory / "sitecustomize.py").write_text(log_import + site)
    return directory


def stop_and_assert_isolated(init: Init, mark: Path, loaded: set[str]) -> None:
    """Assert that process 1 has one thread, the agent our environment, that only `loaded` was imported; then stop."""
    agent = wait_for_agent(init)
    assert environment(agent) == environment(init.outer.pid)
    assert int(status(agent)["Threads"]) == 1
    until(lambda: "TERM" in signals_in_mask(init.pid, "SigBlk"), "blocked signals")
    assert int(status(init.pid)["Threads"]) == 1
    assert (set(mark.read_text().split()) if mark.exists() else set()) == loaded
    init.signal("TERM")
    assert init.wait() == 143
    assert "Traceback" not in init.stderr
    for line in ("started sleep", "stop requested by TERM", "was killed by SIGTERM"):
        assert init.wait_for_line(line)
    assert (set(mark.read_text().split()) if mark.exists() else set()) == loaded


@pytest.mark.parametrize("site", ["", STARTS_THREADS], ids=["", "sitecustomize"])
@pytest.mark.parametrize("options", [[], ["--log-format", "json"]], ids=["", "json"])
def test_modules_in_pythonpath_are_not_loaded_into_process_1(
    start_in_role: Start, tmp_path: Path, options: list[str], site: str
) -> None:
    mark = tmp_path / "loaded"
    app = write_modules(tmp_path / "app", mark, site=site)
    env = clean_environment(PYTHONPATH=f"{app}:/elsewhere", LAST="1")
    init = start_in_role(*options, command=["--", *IDLE], env=env, cwd=app)
    if options:
        assert '"event": "started"' in until(lambda: init.stderr, "a line")
        wait_for_agent(init)
        init.signal("TERM")
        assert init.wait() == 143
        assert (set(mark.read_text().split()) if mark.exists() else set()) <= {"sitecustomize"}
    else:
        stop_and_assert_isolated(init, mark, {"sitecustomize"} if site else set())


def test_modules_in_the_working_directory_are_not_loaded_into_process_1(start_in_role: Start, tmp_path: Path) -> None:
    mark = tmp_path / "loaded"
    init = start_in_role(command=IDLE, cwd=write_modules(tmp_path / "app", mark), env=clean_environment(PYTHONPATH=""))
    stop_and_assert_isolated(init, mark, set())


VARIABLES = {
    "PYTHONSTARTUP": "{directory}/startup.py",
    "PYTHONWARNINGS": "error",
    "PYTHONINSPECT": "1",
    "PYTHONDEVMODE": "1",
    "PYTHONVERBOSE": "1",
    "PYTHONTRACEMALLOC": "25",
    "PYTHONFAULTHANDLER": "1",
    "PYTHONPROFILEIMPORTTIME": "1",
    "PYTHONMALLOC": "debug",
    "PYTHONOPTIMIZE": "2",
    "PYTHONDEBUG": "1",
    "PYTHONCASEOK": "1",
    "PYTHONUTF8": "0",
    "PYTHONIOENCODING": "utf-16",
    "PYTHONSAFEPATH": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUSERBASE": "{directory}",
    "PYTHONPYCACHEPREFIX": "{directory}",
    "PYTHONINTMAXSTRDIGITS": "640",
    "PYTHONASYNCIODEBUG": "1",
    "PYTHON_COLORS": "1",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_python_variable_does_not_affect_process_1(start: Start, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "loaded"
    startup = f"open({str(mark)!r}, 'w').write('startup')\n"
    (tmp_path / "startup.py").write_text(startup)
    env = clean_environment(**{name: VARIABLES[name].format(directory=tmp_path), "LAST": "1"})
    stop_and_assert_isolated(start(command=IDLE, env=env, cwd=tmp_path), mark, set())


def test_all_python_variables_together_do_not_affect_process_1(start_in_role: Start, tmp_path: Path) -> None:
    mark = tmp_path / "loaded"
    app = write_modules(tmp_path / "app", mark, site=STARTS_THREADS)
    env = {name: value.format(directory=app) for name, value in VARIABLES.items()}
    init = start_in_role(command=IDLE, env=clean_environment(**env, PYTHONPATH=str(app), LAST="1"), cwd=app)
    stop_and_assert_isolated(init, mark, {"sitecustomize"})


# --- Site-packages. -------------------------------------------------------------------------------------------------


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A new virtual environment with agent-init in it."""
    made = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True, timeout=60)
    shutil.copytree(PACKAGE, site_packages(made) / "entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
    command = made / "bin" / "agent-init"
    lines = (PACKAGE.parent / "launcher" / "agent-init.py").read_text().splitlines(keepends=True)
    command.write_text("".join([f"#!{made}/bin/python\n", *lines[1:]]))
    command.chmod(0o755)
    return made


def site_packages(venv: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(venv), "platbase": str(venv)}))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("sitecustomize.py", STARTS_THREADS),
        (
            "sitecustomize.py",
            "import threading, logging, asyncio\nthreading.Thread(target=threading.Event().wait).start()",
        ),
        ("hostile.pth", "import sitehook\n"),
        ("hostile.pth", "import os; os.environ['SET_BY_SITE'] = '1'; os.environ.pop('LAST', None)\n"),
        ("hostile.pth", "import sys; sys.meta_path.insert(0, type('Hook', (), {'find_spec': lambda *_: None})())\n"),
    ],
    ids=[
        "sitecustomize",
        "sitecustomize that imports",
        "pth that imports",
        "pth that sets variables",
        "pth with a hook",
    ],
)
def test_code_in_site_packages_is_not_run_in_process_1(
    start_in_role: Start, tmp_path: Path, venv: Path, file: str, content: str
) -> None:
    mark = tmp_path / "loaded"
    packages = write_modules(site_packages(venv), mark, names=set(HOSTILE) - {"entrypoint"})
    (packages / "sitehook.py").write_text(STARTS_THREADS)
    (packages / file).write_text(content)
    init = start_in_role(command=IDLE, env=clean_environment(LAST="1"), program=[str(venv / "bin" / "agent-init")])
    stop_and_assert_isolated(init, mark, set())


def test_agents_own_entrypoint_package_is_not_loaded_into_process_1(
    start_in_role: Start, tmp_path: Path, venv: Path
) -> None:
    """A package of the same name, with modules of the same names, comes before ours in the path."""
    mark = tmp_path / "loaded"
    app = tmp_path / "app"
    app.mkdir()
    write_modules(app / "entrypoint", mark, names=["__init__", "options", "start"])
    write_modules(app / "entrypoint" / "init", mark, names=["__init__", "signals"])
    env = clean_environment(PYTHONPATH=str(app), LAST="1")
    stop_and_assert_isolated(
        start_in_role(command=IDLE, env=env, cwd=app, program=[str(venv / "bin" / "agent-init")]), mark, set()
    )


def test_process_1_is_isolated_when_started_through_a_symlink(start_in_role: Start, tmp_path: Path, venv: Path) -> None:
    link = tmp_path / "init"
    link.symlink_to(venv / "bin" / "agent-init")
    stop_and_assert_isolated(
        start_in_role(command=IDLE, env=clean_environment(), program=[str(link)]), tmp_path / "loaded", set()
    )


def test_variables_that_the_interpreter_does_not_accept_reach_the_agent(start: Start, venv: Path) -> None:
    """They are for the agent's interpreter. Ours would not start with them, but for -I."""
    env = clean_environment(PYTHON_GIL="0", PYTHONHASHSEED="of a later release", PYTHONMALLOC="of a later release")
    init = start(command=IDLE, env=env, program=[str(venv / "bin" / "python"), "-I", "-m", "entrypoint"])
    assert environment(wait_for_agent(init)) == environment(init.outer.pid)
    init.signal("TERM")
    assert init.wait() == 143


def test_process_1_is_isolated_when_started_with_python_m(start_in_role: Start, tmp_path: Path, venv: Path) -> None:
    mark = tmp_path / "loaded"
    app = write_modules(tmp_path / "app", mark, names=set(HOSTILE) - {"entrypoint"}, site=STARTS_THREADS)
    env = clean_environment(PYTHONPATH=str(app), PYTHONDEVMODE="1", LAST="1")
    program = [str(venv / "bin" / "python"), "-m", "entrypoint"]
    init = start_in_role(command=IDLE, env=env, program=program)
    agent = wait_for_agent(init)
    assert environment(agent) == environment(init.outer.pid)
    assert int(status(init.pid)["Threads"]) == 1
    init.signal("TERM")
    assert init.wait() == 143


@pytest.mark.parametrize("pth", ["", "import errno, itertools, _weakref\n"], ids=["", "pth"])
def test_a_start_in_a_clean_interpreter_is_the_only_one(start_in_role: Start, venv: Path, pth: str) -> None:
    """The interpreter imports other built-in modules in each release; none of them makes process 1 start over."""
    (site_packages(venv) / "more.pth").write_text(pth)
    init = start_in_role(command=IDLE, env=clean_environment(), program=[str(venv / "bin" / "agent-init")])
    wait_for_agent(init)
    arguments = Path(f"/proc/{init.pid}/cmdline").read_bytes().split(b"\0")
    assert not {b"-I", b"-S"} & {*arguments}
    init.signal("TERM")
    assert init.wait() == 143


def test_an_entrypoint_package_of_the_agent_in_the_prefix_is_not_taken(start_in_role: Start, venv: Path) -> None:
    """As where the agent's files were copied over the virtual environment."""
    (venv / "entrypoint").mkdir()
    for name in ("__init__.py", "__main__.py", "start.py"):
        (venv / "entrypoint" / name).write_text("raise SystemExit('of the agent')")
    init = start_in_role(command=IDLE, program=[str(venv / "bin" / "agent-init")])
    wait_for_agent(init)
    init.signal("TERM")
    assert init.wait() == 143


@pytest.mark.parametrize("encoding", locales.ENCODINGS)
@pytest.mark.parametrize("flags", [[], ["-I", "-S"]], ids=["as a script", "isolated"])
def test_arguments_reach_the_agent_as_they_are_in_any_locale(
    tmp_path: Path, venv: Path, flags: list[str], encoding: str
) -> None:
    env = clean_environment(**locales.locale(tmp_path, encoding))
    script = site_packages(venv) / "entrypoint" / "__main__.py" if flags else venv / "bin" / "agent-init"
    program = [str(venv / "bin" / "python"), *flags, str(script)]
    command = [*program, "-q", "--", "printf", "%s\n", *locales.WORDS]
    ran = subprocess.run(command, env=env, capture_output=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.splitlines() == [*map(os.fsencode, locales.WORDS)]


# --- The modules that process 1 loads. ------------------------------------------------------------------------------

# In addition to the modules that the interpreter loads before our first instruction. A new entry costs every container
# memory and start time. The C modules here are built into the interpreter in the common builds, or small.
LOADED = frozenset(
    "errno select _stat _socket entrypoint entrypoint.control entrypoint.first entrypoint.init entrypoint.init.actions "
    "entrypoint.init.agent_environment entrypoint.init.cgroup entrypoint.init.console entrypoint.init.control_socket "
    "entrypoint.init.counters entrypoint.init.cpu_limit entrypoint.init.delivery entrypoint.init.dispositions "
    "entrypoint.init.execution entrypoint.init.exit_status entrypoint.init.fallback entrypoint.init.fast_path "
    "entrypoint.init.faults entrypoint.init.history entrypoint.init.job_control entrypoint.init.later "
    "entrypoint.init.libc entrypoint.init.lifecycle entrypoint.init.loop entrypoint.init.main_process "
    "entrypoint.init.narrator entrypoint.init.notify_socket entrypoint.init.procfs entrypoint.init.request_origin "
    "entrypoint.init.signalfd entrypoint.init.spare_memory entrypoint.init.stall_report entrypoint.init.stop_plan "
    "entrypoint.init.stop_steps entrypoint.init.supervisor entrypoint.init.terminal entrypoint.init.tree "
    "entrypoint.init.unused entrypoint.notify entrypoint.parsed entrypoint.paths entrypoint.signals entrypoint.start "
    "entrypoint.units".split()
)
# prctl(2) is called through this. For signalfd(2) process 1 has a child that calls it.
AS_SUBREAPER = frozenset(("_ctypes",))
# Loaded when a stop needs them.
OF_A_STOP = frozenset(
    f"entrypoint.init.{name}"
    for name in "events exit_watch final_message foreground helpers leftovers names output_pipes recipients "
    "termination_log wrapper".split()
) | {"entrypoint.titles"}
NEVER = frozenset(
    "asyncio ctypes click enum json logging os psutil re signal threading traceback typing uvloop".split()
)

# Runs agent-init's script and writes the list of loaded modules when it exits.
WRAPPER = """
import sys
script, output = sys.argv[1:3]
del sys.argv[:2]
before = set(sys.modules)
with open(script) as file:
    code = compile(file.read(), script, "exec")
space = {"__name__": "__main__", "__file__": script}
import posix
def end(status):
    with open(output, "w") as file:
        file.write("\\n".join(sorted(set(sys.modules) - before)))
    real(status)
real, posix._exit = posix._exit, end
exec(code, space)
"""

SCENARIOS = {
    "ends by itself": "leave()",
    "is stopped": "on('TERM', leave); ready()",
    "is killed, with descendants": "orphan('child', 'ignore(\"TERM\"); ready()'); ignore('TERM'); ready()",
}
SETTINGS: dict[str, tuple[list[str], dict[str, str]]] = {
    "bare": ([], {}),
    "environment": ([], {"AGENT_INIT_GRACE": "1s", "AGENT_INIT_STOP_ON": "TERM,INT,HUP", "AGENT_INIT_OK_EXIT": "143"}),
    "flags": (["-v", "-t", "1s", "--stop-on=TERM,RTMIN+3", "-r", "HUP:QUIT", "-e143", "--linger", "1s"], {}),
    "a platform": ([], {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}),
    "json": (["--log-format", "json"], {}),
    "lazy imports": ([], {"PYTHON_LAZY_IMPORTS": "all"}),
    "a schedule": (["--stop-schedule", "TERM/200ms/INT/200ms/KILL"], {}),
}


@pytest.mark.parametrize("interpreter", [["-I", "-S"], ["-S"]], ids=["interpreter re-executed", "interpreter kept"])
@pytest.mark.parametrize("setting", sorted(SETTINGS.keys() - {"json"}))
def test_process_1_loads_only_the_listed_modules(
    start_in_role: Start, tmp_path: Path, setting: str, interpreter: list[str]
) -> None:
    assert modules_loaded(start_in_role, tmp_path, setting, "ends by itself", interpreter) == LOADED


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_process_1_loads_only_the_listed_modules_during_a_stop(
    start_in_role: Start, tmp_path: Path, scenario: str
) -> None:
    """A stop needs some modules more, and a stall report the C part of the standard library's JSON."""
    more = {"_json"} if "killed" in scenario else set()
    loaded = modules_loaded(start_in_role, tmp_path, "flags", scenario, ["-I", "-S"])
    assert LOADED | more <= loaded <= LOADED | more | (OF_A_STOP if "by itself" not in scenario else set())


def test_process_1_loads_one_more_module_for_json(start_in_role: Start, tmp_path: Path) -> None:
    assert modules_loaded(start_in_role, tmp_path, "json", "ends by itself", ["-I", "-S"]) == LOADED | {"_json"}


def modules_loaded(
    start_in_role: Start, tmp_path: Path, setting: str, scenario: str, interpreter: list[str]
) -> set[str]:
    """Run a scenario and return the modules that process 1 has loaded at its exit."""
    argv, variables = SETTINGS[setting]
    wrapper, output = tmp_path / "wrapper.py", tmp_path / "modules"
    wrapper.write_text(WRAPPER)
    program = [sys.executable, *interpreter, str(wrapper), str(PACKAGE / "__main__.py"), str(output)]
    init = start_in_role(*argv, agent=SCENARIOS[scenario], program=program, env=clean_environment(**variables))
    if scenario != "ends by itself":
        init.wait_for_event("ready")
        if "orphan" in SCENARIOS[scenario]:
            init.wait_for_event("ready", "child")
        init.signal("TERM")
    init.wait()
    loaded = set(output.read_text().split())
    assert not loaded & NEVER
    return loaded if init.process1 else loaded - AS_SUBREAPER


@pytest.mark.parametrize(("word", "code"), [("--version", 0), ("--no-such", 125)])
def test_version_and_usage_errors_do_not_load_click(tmp_path: Path, word: str, code: int) -> None:
    wrapper, output = tmp_path / "wrapper.py", tmp_path / "modules"
    wrapper.write_text(WRAPPER)
    argv = [sys.executable, "-I", "-S", str(wrapper), str(PACKAGE / "__main__.py"), str(output), word]
    assert subprocess.run(argv, capture_output=True, timeout=30).returncode == code
    loaded = set(output.read_text().split())
    assert "entrypoint.cli" in loaded
    assert not loaded & {"click", "entrypoint.init.supervisor"}


def test_help_without_click_names_the_missing_package(venv: Path) -> None:
    argv = [str(venv / "bin" / "agent-init"), "--help"]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=30, env=clean_environment())
    assert ran.returncode == 125
    assert len(ran.stderr.splitlines()) == 1
    assert "click" in ran.stderr


def test_help_works_with_a_hostile_python_path(tmp_path: Path, venv: Path) -> None:
    """Help needs click, which is found beside agent-init even when site-packages are not read."""
    shutil.copytree(Path(click.__file__).parent, site_packages(venv) / "click")
    app = write_modules(tmp_path / "app", tmp_path / "loaded", site=STARTS_THREADS)
    env = clean_environment(PYTHONPATH=str(app))
    command = [str(venv / "bin" / "agent-init"), "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "--grace" in ran.stdout
    assert (tmp_path / "loaded").read_text() == "sitecustomize\n"
