"""--secret: only the agent gets the content of the file."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.init import clean_environment

if TYPE_CHECKING:
    from tests.conftest import Start

CONTENT = "hunter2 \u00fc"
SHOW = "log('environment', **{k: v for k, v in os.environ.items() if 'KEY' in k}); "


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(CONTENT + "\n")
    return path


@pytest.mark.parametrize("extra", [{}, {"PYTHONPATH": "/app"}, {"LISTEN_PID": "1"}], ids=["", "re-exec", "fork"])
def test_agent_gets_the_secret_in_place_of_the_path(start_in_role: Start, secret: Path, extra: dict[str, str]) -> None:
    init = start_in_role(
        "--secret",
        "API_KEY",
        "-vv",
        agent=SHOW + "on('TERM', leave); ready()",
        env=clean_environment(API_KEY_FILE=str(secret), OTHER_KEY="1", **extra),
    )
    init.wait_for_event("ready")
    record = init.wait_for_event("environment")
    assert {name: record[name] for name in record if "KEY" in name} == {"API_KEY": CONTENT, "OTHER_KEY": "1"}
    own = Path(f"/proc/{init.pid}/environ").read_bytes()
    assert f"API_KEY_FILE={secret}".encode() in own
    assert b"hunter2" not in own
    init.signal("TERM")
    assert init.wait() == 0
    assert "hunter2" not in init.stderr


def test_stall_reporter_does_not_get_the_secret(start_in_role: Start, secret: Path) -> None:
    init = start_in_role(
        "--secret",
        "API_KEY",
        "-t",
        "2s",
        agent="ignore('TERM'); ready()",
        env=clean_environment(API_KEY_FILE=str(secret)),
    )
    init.wait_for_event("ready")
    init.signal("TERM")
    seen: dict[int, bytes] = {}
    while init.outer.poll() is None:
        for process in init.remaining_processes():
            with suppress(OSError):
                if b"/report/__main__.py" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                    seen[process.pid] = Path(f"/proc/{process.pid}/environ").read_bytes()
        time.sleep(0.02)
    assert init.wait() == 137
    assert seen
    assert all(b"API_KEY_FILE" in environment and b"hunter2" not in environment for environment in seen.values())
    assert "hunter2" not in init.stderr


def test_names_come_from_the_variable_too(start_in_role: Start, secret: Path) -> None:
    env = clean_environment(AGENT_INIT_SECRET="A_KEY,B_KEY", A_KEY_FILE=str(secret), B_KEY_FILE=str(secret))
    init = start_in_role(agent=SHOW + "leave()", env=env)
    assert init.wait() == 0
    record = init.wait_for_event("environment")
    assert (record["A_KEY"], record["B_KEY"]) == (CONTENT, CONTENT)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("none", "API_KEY_FILE is not set"),
        ("set", "API_KEY is already set"),
        ("missing", "No such file"),
        ("directory", "regular file"),
        ("FIFO", "regular file"),
        ("/dev/zero", "regular file"),
        ("large", "128 KiB"),
        ("NUL", "NUL"),
    ],
)
@pytest.mark.parametrize("json", [False, True])
def test_bad_secret_is_refused_before_the_agent_starts(
    start_in_role: Start, tmp_path: Path, secret: Path, kind: str, reason: str, *, json: bool
) -> None:
    os.mkfifo(tmp_path / "fifo")
    if kind == "large":
        secret.write_text("hunter2" * 20000)
    if kind == "NUL":
        secret.write_text("hunter2\0")
    path = {"missing": tmp_path / "nothing", "directory": tmp_path, "FIFO": tmp_path / "fifo", "/dev/zero": kind}
    variables = {} if kind == "none" else {"API_KEY_FILE": str(path.get(kind, secret))}
    if kind == "set":
        variables["API_KEY"] = "hunter2"
    init = start_in_role(
        *(["--log-format", "json"] if json else []),
        "--secret",
        "API_KEY",
        command=["touch", str(tmp_path / "ran")],
        env=clean_environment(**variables),
    )
    assert init.wait() == 125
    [line] = init.stderr.splitlines()
    assert "--secret API_KEY: " in line
    assert reason in line
    assert "hunter2" not in line
    assert not (tmp_path / "ran").exists()
