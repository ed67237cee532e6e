"""Names of processes: they say what runs, and hold no arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint import titles
from entrypoint.init import events, procfs
from entrypoint.init.procfs import Process

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "argv", "title"),
    [
        ("python3", ["/usr/bin/python3", "/app/agent.py", "--key", "hunter2"], "python3 agent.py"),
        ("python", ["python", "-X", "dev", "-W", "error", "-u", "agent.py"], "python agent.py"),
        ("python", ["python", "-m", "uvicorn", "app:app"], "python -m uvicorn"),
        ("python", ["python", "-Im", "livekit.agents", "start"], "python -m livekit.agents"),
        ("python", ["python", "-m"], "python"),
        ("python", ["python", "-m", "a b"], "python"),
        ("python", ["python", "-c", "key = 'hunter2'"], "python -c"),
        ("python", ["python", "-c"], "python -c"),
        ("python", ["python", "-X"], "python"),
        ("python", ["python"], "python"),
        ("python", ["python", "--version"], "python"),
        ("a job", ["python", "agent.py"], "a job"),
        ("python", ["/usr/bin/python3", "agent.py"], "python3 agent.py"),
        ("node-MainThread", ["node", "server.js"], "node server.js"),
        ("uvicorn", ["/venv/bin/python", "/venv/bin/uvicorn", "app:app"], "uvicorn"),
        ("python", ["python", "-c", "from multiprocessing.resource_tracker import main;main(5)"], "resource tracker"),
        ("python", ["python", "-Ec", "from multiprocessing.forkserver import main; main(1)"], "forkserver"),
        ("python", ["python", "-c", "import sys; from multiprocessing.forkserver import main; m(1)"], "forkserver"),
        ("python", ["python", "-c", "from multiprocessing.spawn import spawn_main; x", "-f"], "spawn worker"),
        ("MainThread", ["node", "--require", "./hook.js", "/app/server.js", "--token=x"], "node server.js"),
        ("node", ["node", "-e", "hunter2()"], "node -e"),
        ("node", ["node", "--eval", "const key = 'hunter2'"], "node --eval"),
        ("node", ["node", "--eval=const key = 'hunter2'"], "node --eval"),
        ("node", ["node", "-p", "'hunter2'"], "node -p"),
        ("node", ["node", "-pe", "'hunter2'"], "node -p"),
        ("node", ["node", "--env-file", "hunter2", "app.js"], "node app.js"),
        ("node", ["node", "--env-file=hunter2", "app"], "node app"),
        ("node", ["node", "--some-new-option", "hunter2", "app.js"], "node"),
        ("node", ["node", "--enable-source-maps", "/app/index.mjs", "hunter2"], "node index.mjs"),
        ("python", ["python", "-mapp", "--token", "hunter2"], "python -m app"),
        ("python", ["python", "-uckey='hunter2'", "hunter2"], "python -c"),
        ("python", ["python", "-Xdev", "-Werror", "agent.py"], "python agent.py"),
        ("python", ["python", "-", "hunter2"], "python"),
        ("python", ["python", "--", "agent.py", "hunter2"], "python agent.py"),
        ("python", ["python", "--"], "python"),
        ("python", ["python", "key='hunter2'"], "python"),
        ("pypy3", ["pypy3", "-c", "key = 'hunter2'"], "pypy3 -c"),
        ("perl", ["perl", "-lane", "hunter2"], "perl -e"),
        ("perl", ["perl", "-E", "hunter2"], "perl -E"),
        ("perl", ["perl", "-i.orig", "-MFile::Spec", "-I", "lib", "job.pl"], "perl job.pl"),
        ("ruby", ["ruby", "-rset", "-I", "lib", "-W0", "-e", "hunter2"], "ruby -e"),
        ("sh", ["/bin/sh", "-c", "curl -H hunter2"], "sh -c"),
        ("sh", ["sh", "-ceu", "curl -H hunter2"], "sh -c"),
        ("bash", ["bash", "-euo", "pipefail", "-c", "curl -H hunter2"], "bash -c"),
        ("bash", ["bash", "-o", "pipefail", "+e", "--rcfile", "x", "/app/start"], "bash start"),
        ("bash", ["bash", "--login", "start"], "bash start"),
        ("bash", ["bash", "-es", "hunter2"], "bash"),
        ("fish", ["fish", "-C", "hunter2"], "fish -C"),
        ("fish", ["fish", "--command", "hunter2"], "fish --command"),
        ("bash", ["-bash"], "bash"),
        ("bash", ["bash", "-e", "start.sh"], "bash start.sh"),
        ("gunicorn: maste", ["gunicorn: master [app:app]", "", ""], "gunicorn: master [app:app]"),
        ("python", ["[celeryd: celery@host:MainProcess] (-A app --broker x)"], "[celeryd: celery"),
        ("x", ["worker -A app --password hunter2"], "worker"),
        ("x", ["redis-server *:6379 redis://u:hunter2@h"], "redis-server *:6379 redis"),
        ("x", ["very " * 20], "very very very very very very very very"),
        ("x", [" (secret)"], "x"),
        ("postgres", ["/usr/bin/postgres", "-c", "password=hunter2"], "postgres"),
        ("kthread", [], "kthread"),
        ("x", [""], "x"),
    ],
)
def test_a_title_names_what_runs_without_its_arguments(name: str, argv: list[str], title: str) -> None:
    found = titles.of(name, argv)
    assert found == title
    assert "hunter2" not in found


CODE = "import os; key = 'hunter2'"
PROGRAMS = ("python3.13", "pypy3", "node", "ruby", "perl", "bash", "dash", "fish", "zsh")


@given(st.sampled_from(PROGRAMS), st.lists(st.from_regex(r"[-+]{1,2}[A-Za-z0-9=-]{0,8}", fullmatch=True), max_size=4))
def test_code_is_in_no_title_whatever_options_there_are(program: str, options: list[str]) -> None:
    assert "hunter2" not in titles.of(program, [program, *options, CODE, "arguments of hunter2"])


def test_a_fork_of_the_forkserver_is_a_worker() -> None:
    assert titles.of_child("forkserver", "forkserver") == "forkserver worker"
    assert titles.of_child("forkserver", "python agent.py") == "forkserver"
    assert titles.of_child("python agent.py", "python agent.py") == "python agent.py"


FORKS = "import os\nif os.fork():\n    os.wait()\nelse:\n    print(os.getpid(), flush=True)\n    input()\n"


def test_a_process_like_its_parent_is_named_with_it(tmp_path: Path) -> None:
    program = tmp_path / "agent.py"
    program.write_text(FORKS)
    with subprocess.Popen(
        [sys.executable, str(program), "hunter2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout
        child = int(running.stdout.readline())
        processes = [found for pid in (running.pid, child) if (found := procfs.look(pid))]
        gone = Process(child, "node", 1, 1, 1)  # another process with the same pid
        text = events.listed([*processes, gone])
        running.communicate(b"\n")
    python = os.path.basename(sys.executable)
    first = f"{python} agent.py ({running.pid})"
    assert text.startswith(f"{first}, ")
    assert events.listed([gone]) == f"node ({child})"
    assert events.listed(processes[:1]).startswith("python")


def test_processes_that_are_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    argvs = {
        2: ["python", "agent.py"],
        9: ["python", "agent.py"],
        10: ["python", "-c", "from multiprocessing.forkserver import main; main()"],
        11: ["python", "-c", "from multiprocessing.forkserver import main; main()"],
    }
    monkeypatch.setattr(procfs, "argv_of", lambda pid: argvs[pid])
    monkeypatch.setattr(procfs, "is_there", lambda _: True)
    parents = {2: 1, 9: 2, 10: 2, 11: 10}
    listed = events.listed([Process(pid, "python", parent, pid, 1) for pid, parent in parents.items()])
    workers = "forkserver (10), forkserver worker (11, child of 10)"
    assert listed == f"python agent.py (2), python agent.py (9, child of 2), {workers}"


def test_without_the_module_processes_have_their_plain_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("entrypoint.titles", raising=False)
    monkeypatch.setitem(sys.modules, "entrypoint.titles", None)
    assert events.listed([Process(2, "python", 1, 2, 1)]) == "python (2)"
