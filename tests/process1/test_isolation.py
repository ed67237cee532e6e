"""Nothing of the container's Python reaches process 1, and process 1 loads what it needs and no more."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from tests.support.init import clean_environment, until
from tests.support.proc import IDLE, agent_of, environment, masked, status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.conftest import Start
    from tests.support.init import Init

PACKAGE = Path(__file__).parents[2] / "entrypoint"

# Names of the standard library, of the dependencies and of agent-init itself, as they are found next to real agents.
HOSTILE = (
    "signal select os sys enum errno stat time io abc codecs posixpath json logging typing re asyncio click psutil "
    "uvloop entrypoint options init _json _ctypes _socket _thread console process loop"
).split()

STARTS_THREADS = """
import _thread, os, time
for _ in range(3):
    _thread.start_new_thread(time.sleep, (1000,))
os.environ["SET_BY_SITE"] = "1"
os.environ.pop("LAST", None)
"""


def fill(directory: Path, mark: Path, names: Iterable[str] = HOSTILE, site: str = "") -> Path:
    """Modules that tell when they are loaded, and fail; with `site`, a sitecustomize that does it."""
    directory.mkdir(exist_ok=True)
    tell = f"with open({str(mark)!r}, 'a') as file: file.write(__name__ + '\\n')\n"
    for name in names:
        (directory / f"{name}.py").write_text(f"{tell}raise ImportError('{name} of the container was loaded')\n")
    if site:
        (directory / "sitecustomize.py").write_text(tell + site)
    return directory


def isolated(init: Init, mark: Path, loaded: set[str]) -> None:
    """Process 1 has one thread, the agent our environment; only `loaded` was ever imported; and a stop works."""
    agent = agent_of(init)
    assert environment(agent) == environment(init.outer.pid)
    assert int(status(agent)["Threads"]) == 1
    until(lambda: "TERM" in masked(init.pid, "SigBlk"), "blocked signals")
    assert int(status(init.pid)["Threads"]) == 1
    assert (set(mark.read_text().split()) if mark.exists() else set()) == loaded
    init.signal("TERM")
    assert init.wait() == 143
    assert "Traceback" not in init.stderr
    for line in ("started sleep", "stop requested by TERM", "was killed by SIGTERM"):
        assert init.said(line)
    assert (set(mark.read_text().split()) if mark.exists() else set()) == loaded


@pytest.mark.parametrize("site", ["", STARTS_THREADS], ids=["", "sitecustomize"])
@pytest.mark.parametrize("options", [[], ["--log-format", "json"]], ids=["", "json"])
def test_modules_in_pythonpath_do_not_reach_process_1(
    started: Start, tmp_path: Path, options: list[str], site: str
) -> None:
    mark = tmp_path / "loaded"
    app = fill(tmp_path / "app", mark, site=site)
    env = clean_environment(PYTHONPATH=f"{app}:/elsewhere", LAST="1")
    init = started(*options, command=["--", *IDLE], env=env, cwd=app)
    if options:
        assert '"event": "started"' in until(lambda: init.stderr, "a line")
        agent_of(init)
        init.signal("TERM")
        assert init.wait() == 143
        assert (set(mark.read_text().split()) if mark.exists() else set()) <= {"sitecustomize"}
    else:
        isolated(init, mark, {"sitecustomize"} if site else set())


def test_modules_in_the_working_directory_do_not_reach_process_1(started: Start, tmp_path: Path) -> None:
    mark = tmp_path / "loaded"
    init = started(command=IDLE, cwd=fill(tmp_path / "app", mark), env=clean_environment(PYTHONPATH=""))
    isolated(init, mark, set())


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
def test_variables_of_the_interpreter_do_not_reach_process_1(start: Start, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "loaded"
    startup = f"open({str(mark)!r}, 'w').write('startup')\n"
    (tmp_path / "startup.py").write_text(startup)
    env = clean_environment(**{name: VARIABLES[name].format(directory=tmp_path), "LAST": "1"})
    isolated(start(command=IDLE, env=env, cwd=tmp_path), mark, set())


def test_all_of_them_at_once(started: Start, tmp_path: Path) -> None:
    mark = tmp_path / "loaded"
    app = fill(tmp_path / "app", mark, site=STARTS_THREADS)
    env = {name: value.format(directory=app) for name, value in VARIABLES.items()}
    init = started(command=IDLE, env=clean_environment(**env, PYTHONPATH=str(app), LAST="1"), cwd=app)
    isolated(init, mark, {"sitecustomize"})


# --- Site-packages. -------------------------------------------------------------------------------------------------


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment of its own with agent-init in it."""
    made = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True, timeout=60)
    shutil.copytree(PACKAGE, site_packages(made) / "entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
    command = made / "bin" / "agent-init"
    lines = (PACKAGE / "__main__.py").read_text().splitlines(keepends=True)
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
def test_site_packages_do_not_reach_process_1(
    started: Start, tmp_path: Path, venv: Path, file: str, content: str
) -> None:
    mark = tmp_path / "loaded"
    packages = fill(site_packages(venv), mark, names=set(HOSTILE) - {"entrypoint"})
    (packages / "sitehook.py").write_text(STARTS_THREADS)
    (packages / file).write_text(content)
    init = started(command=IDLE, env=clean_environment(LAST="1"), program=[str(venv / "bin" / "agent-init")])
    isolated(init, mark, set())


def test_an_entrypoint_of_the_agents_does_not_take_our_place(started: Start, tmp_path: Path, venv: Path) -> None:
    """A package of the same name, with modules of the same names, before ours in the path."""
    mark = tmp_path / "loaded"
    app = tmp_path / "app"
    app.mkdir()
    fill(app / "entrypoint", mark, names=["__init__", "options", "start"])
    fill(app / "entrypoint" / "init", mark, names=["__init__", "signals"])
    env = clean_environment(PYTHONPATH=str(app), LAST="1")
    isolated(started(command=IDLE, env=env, cwd=app, program=[str(venv / "bin" / "agent-init")]), mark, set())


def test_started_by_a_link(started: Start, tmp_path: Path, venv: Path) -> None:
    link = tmp_path / "init"
    link.symlink_to(venv / "bin" / "agent-init")
    isolated(started(command=IDLE, env=clean_environment(), program=[str(link)]), tmp_path / "loaded", set())


def test_the_interpreter_with_the_module(started: Start, tmp_path: Path, venv: Path) -> None:
    mark = tmp_path / "loaded"
    app = fill(tmp_path / "app", mark, names=set(HOSTILE) - {"entrypoint"}, site=STARTS_THREADS)
    env = clean_environment(PYTHONPATH=str(app), PYTHONDEVMODE="1", LAST="1")
    program = [str(venv / "bin" / "python"), "-m", "entrypoint"]
    init = started(command=IDLE, env=env, program=program)
    agent = agent_of(init)
    assert environment(agent) == environment(init.outer.pid)
    assert int(status(init.pid)["Threads"]) == 1
    init.signal("TERM")
    assert init.wait() == 143


# --- What is loaded. ------------------------------------------------------------------------------------------------

# Beside what the interpreter loads before our first instruction. A new entry here costs each container memory and each
# start time; the C modules among them are part of the interpreter's own file in the common builds, or small.
LOADED = frozenset(
    "errno genericpath os os.path posixpath select stat _collections_abc _stat _ctypes _socket "
    "entrypoint entrypoint.notify entrypoint.options entrypoint.platforms entrypoint.init entrypoint.init.cgroup "
    "entrypoint.init.console entrypoint.init.hearing entrypoint.init.lastwords entrypoint.init.libc "
    "entrypoint.init.lifecycle entrypoint.init.loop entrypoint.init.offer entrypoint.init.plan "
    "entrypoint.init.process entrypoint.init.recipients entrypoint.init.report entrypoint.init.signalfd "
    "entrypoint.init.signals entrypoint.init.start entrypoint.init.supervisor entrypoint.init.tree".split()
)
NEVER = frozenset("asyncio ctypes click enum json logging psutil re signal threading traceback typing uvloop".split())

# Plays the interpreter that runs agent-init: the same file, and at its end the list of modules.
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

LIVES = {
    "ends by itself": "leave()",
    "is stopped": "on('TERM', leave); ready()",
    "is killed, with descendants": "orphan('child', 'ignore(\"TERM\"); ready()'); ignore('TERM'); ready()",
}
FORMS: dict[str, tuple[list[str], dict[str, str]]] = {
    "bare": ([], {}),
    "environment": ([], {"AGENT_INIT_GRACE": "1s", "AGENT_INIT_STOP_ON": "TERM,INT,HUP", "AGENT_INIT_OK_EXIT": "143"}),
    "flags": (["-v", "-t", "1s", "--stop-on=TERM,RTMIN+3", "-r", "HUP:QUIT", "-e143", "--linger", "1s"], {}),
    "a platform": ([], {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}),
    "json": (["--log-format", "json"], {}),
    "a schedule": (["--stop-schedule", "TERM/200ms/INT/200ms/KILL"], {}),
}


@pytest.mark.parametrize("interpreter", [["-I", "-S"], ["-S"]], ids=["started over", "as started"])
@pytest.mark.parametrize("form", sorted(FORMS.keys() - {"json"}))
def test_modules_loaded_in_process_1(started: Start, tmp_path: Path, form: str, interpreter: list[str]) -> None:
    assert modules(started, tmp_path, form, "ends by itself", interpreter) == LOADED


@pytest.mark.parametrize("life", LIVES)
def test_modules_loaded_in_process_1_during_a_stop(started: Start, tmp_path: Path, life: str) -> None:
    """One more where a report is asked for: the part of the standard library's JSON that is written in C."""
    more = {"_json"} if "killed" in life else set()
    assert modules(started, tmp_path, "flags", life, ["-I", "-S"]) == LOADED | more


def test_modules_loaded_for_json(started: Start, tmp_path: Path) -> None:
    assert modules(started, tmp_path, "json", "ends by itself", ["-I", "-S"]) == LOADED | {"_json"}


def modules(started: Start, tmp_path: Path, form: str, life: str, interpreter: list[str]) -> set[str]:
    """Those that process 1 has loaded at the end of a life."""
    words, variables = FORMS[form]
    wrapper, output = tmp_path / "wrapper.py", tmp_path / "modules"
    wrapper.write_text(WRAPPER)
    program = [sys.executable, *interpreter, str(wrapper), str(PACKAGE / "__main__.py"), str(output)]
    init = started(*words, agent=LIVES[life], program=program, env=clean_environment(**variables))
    if life != "ends by itself":
        init.event("ready")
        if "orphan" in LIVES[life]:
            init.event("ready", "child")
        init.signal("TERM")
    init.wait()
    loaded = set(output.read_text().split())
    assert not loaded & NEVER
    return loaded


@pytest.mark.parametrize(("word", "code"), [("--version", 0), ("--no-such", 125)])
def test_neither_version_nor_mistake_needs_click(tmp_path: Path, word: str, code: int) -> None:
    wrapper, output = tmp_path / "wrapper.py", tmp_path / "modules"
    wrapper.write_text(WRAPPER)
    words = [sys.executable, "-I", "-S", str(wrapper), str(PACKAGE / "__main__.py"), str(output), word]
    assert subprocess.run(words, capture_output=True, timeout=30).returncode == code
    loaded = set(output.read_text().split())
    assert "entrypoint.cli" in loaded
    assert not loaded & {"click", "entrypoint.init.supervisor"}


def test_help_without_click_says_what_is_missing(venv: Path) -> None:
    words = [str(venv / "bin" / "agent-init"), "--help"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=30, env=clean_environment())
    assert ran.returncode == 125
    assert len(ran.stderr.splitlines()) == 1
    assert "click" in ran.stderr


def test_help_whatever_the_container_s_settings_are(tmp_path: Path, venv: Path) -> None:
    """Help needs click, which is found beside agent-init even where site-packages are not read."""
    shutil.copytree(Path(click.__file__).parent, site_packages(venv) / "click")
    app = fill(tmp_path / "app", tmp_path / "loaded", site=STARTS_THREADS)
    env = clean_environment(PYTHONPATH=str(app))
    command = [str(venv / "bin" / "agent-init"), "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "--grace" in ran.stdout
    assert (tmp_path / "loaded").read_text() == "sitecustomize\n"
