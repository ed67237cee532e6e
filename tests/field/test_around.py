"""What runs around the agent, with genuine programs: tools left behind, a database of the start script, restarts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import AGENT_INIT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.init import Init

NODE, REDIS = shutil.which("node"), shutil.which("redis-server")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: python -m tests.field.install")
needs_redis = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed: python -m tests.field.install")
LEFT_BY_A_TOOL = {
    # timeout(1) ends the shell that it has started, and not what that shell runs.
    "timeout": "timeout --foreground -s KILL 0.3 bash -c 'sleep 1000 & sleep 1001; exit'",
    "dev server": "(setsid sh -c 'python3 -m http.server --bind 127.0.0.1 0; exit' >/dev/null 2>&1 &)",
    "node": "node -e \"require('child_process').spawn('sleep', ['1002'], {detached: true, stdio: 'ignore'}).unref()\"",
}


def left(init: Init) -> list[list[str]]:
    """The command lines of what the tools have left behind."""
    found = []
    for process in psutil.Process(init.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found.append(process.cmdline())
    return [argv for argv in found if argv[1:2] in (["1000"], ["1001"], ["1002"]) or "http.server" in argv]


@pytest.mark.parametrize("tool", LEFT_BY_A_TOOL)
def test_what_a_tool_has_left_behind_is_stopped(start_in_role: Start, tool: str) -> None:
    if tool == "node" and NODE is None:
        pytest.skip("node is not installed: python -m tests.field.install")
    agent = f"{LEFT_BY_A_TOOL[tool]}; trap 'exit 7' TERM; while :; do sleep 0.1; done"
    init = start_in_role("--orphans", "1s", "--linger", "2s", "-t", "20s", command=["bash", "-c", agent])
    init.wait_for(lambda: left(init), "the tool's processes")
    init.wait_for_line("orphan ")
    init.wait_for(lambda: not left(init), "their end")
    init.signal("TERM")
    assert init.wait() == 7


@needs_redis
@pytest.mark.parametrize("option", [[], ["--orphans", "500ms"]], ids=["", "orphans"])
def test_database_of_the_start_script_shuts_down_after_the_agent(
    start_in_role: Start, tmp_path: Path, option: list[str]
) -> None:
    """It saves its data: SIGKILL would lose them."""
    socket, data = tmp_path / "socket", tmp_path / "dump.rdb"
    redis = f"redis-server --port 0 --unixsocket {socket} --dir {tmp_path} --save 900 1 >/dev/null &"
    agent = (
        f"import os, signal, socket, time; signal.signal(15, lambda *_: os._exit(3))\n"
        f"while not os.path.exists({str(socket)!r}): time.sleep(.05)\n"
        f"s = socket.socket(socket.AF_UNIX); s.connect({str(socket)!r})\n"
        "s.sendall(b'SET key value\\r\\n'); s.recv(99)\n"
        f"open({str(tmp_path / 'up')!r}, 'w').close()\n"
        "while True: time.sleep(.1)"
    )
    (tmp_path / "agent.py").write_text(agent)
    line = f"{redis} exec {AGENT_INIT} {' '.join(option)} -t 20s -- python3 {tmp_path / 'agent.py'}"
    init = start_in_role(program=["sh", "-c", line])
    init.wait_for((tmp_path / "up").exists, "the agent")
    time.sleep(1.5 if option else 0)
    assert not data.exists()
    init.signal("TERM")
    assert init.wait() == 3
    assert b"value" in data.read_bytes()


@needs_node
def test_node_program_that_restarts_itself_is_recognised(start_in_role: Start, tmp_path: Path) -> None:
    program = tmp_path / "server.js"
    program.write_text(
        "const {spawn} = require('child_process');\n"
        "if (process.argv[2]) setInterval(() => {}, 1000);\n"
        "else { spawn(process.execPath, [__filename, 'again'], {detached: true, stdio: 'ignore'}).unref();\n"
        "       setTimeout(() => process.exit(0), 300) }\n"
    )
    init = start_in_role(command=["node", "server.js"], cwd=tmp_path)
    assert init.wait() == 0
    assert init.lines("runs the same program")


@needs_node
@pytest.mark.parametrize("between", [False, True], ids=["child of process 1", "below a shell"])
def test_node_program_that_minds_its_parent(start: Start, between: bool) -> None:
    """The hint is for a run of less than a second. On a busy machine Node may take longer to start."""
    program = "if (process.ppid === 1) process.exit(0); console.log('works'); setInterval(() => {}, 1000)"
    argv = [*(["sh", "-c", '"$@"; exit $?', "sh"] if between else []), "node", "-e", program]
    init = start("-t", "20s", "-e", "143", "--log-format", "json", command=["--", *argv])
    assert init.outer.stdout
    if between:
        assert init.outer.stdout.readline() == b"works\n"
        os.kill(init.pid, signal.SIGTERM)
        assert init.wait() == 0
    assert init.wait() == 0
    ended = json.loads(init.stderr.splitlines()[-1])
    assert ended["event"] == "ended"
    assert ("because its parent has pid 1" in ended["message"]) is (not between and ended["seconds"] < 1)
