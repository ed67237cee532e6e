"""A mistake ends agent-init before there is an agent: one line, what was typed, what is accepted, exit code 125."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from entrypoint import options
from tests.support.init import AGENT_INIT, clean_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.init import Init

WRONG = "5\u00fcx\n\x1b[31m"  # of no option a value
SHOWN = "5\u00fcx\\n\\x1b[31m"
HUGE = "9" * 100_000


def touch(tmp_path: Path) -> list[str]:
    """A command that leaves a mark, were it ever run."""
    return ["--", "touch", str(tmp_path / "ran")]


def refused(init: Init, tmp_path: Path, *words: str) -> None:
    assert init.wait() == 125, init.stderr
    assert init.stderr.count("\n") == 1, init.stderr
    [line] = init.stderr.splitlines()
    assert line.startswith("agent-init: ")
    assert line.isprintable()
    assert len(line) < 1500
    for word in words:
        assert word in line
    assert not (tmp_path / "ran").exists()
    assert not init.left()


FLAGS = [flag for option in options.OPTIONS for flag in option.flags]
VARIABLES = [option.variable for option in options.OPTIONS]


@pytest.mark.parametrize("flag", FLAGS)
def test_a_wrong_value_of_a_flag(start: Start, tmp_path: Path, flag: str) -> None:
    for text in (WRONG, HUGE, "", "+1"):
        init = start(flag, text, command=touch(tmp_path), process1=False)
        refused(init, tmp_path, f"{flag}: ", "accepted: ", SHOWN if text == WRONG else text[:20])


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_wrong_value_of_a_variable(start: Start, tmp_path: Path, variable: str) -> None:
    for text in (WRONG, HUGE, "+1"):
        init = start(command=touch(tmp_path), process1=False, env=clean_environment(**{variable: text}))
        # Of several in one variable, with blanks between them, the first that is wrong is named.
        refused(init, tmp_path, f"{variable}: ", "accepted: ", SHOWN[:3] if text == WRONG else text[:20])


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_empty_variable_is_not_set(start: Start, tmp_path: Path, variable: str) -> None:
    init = start(command=touch(tmp_path), process1=False, env=clean_environment(**{variable: ""}))
    assert init.wait() == 0
    assert not init.lines("warning")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("words", "variables", "told"),
    [
        (["--no-such"], {}, ["'--no-such'", "--help"]),
        (["--grcae", "5"], {}, ["'--grcae'", "--grace"]),
        (["-z"], {}, ["'-z'"]),
        (["--two\nlines=3"], {}, ["'--two\\nlines'"]),
        (["-vgx"], {}, ["'-x'"]),
        (["--subreaper=yes"], {}, ["--subreaper", "'yes'"]),
        (["--help=me"], {}, ["--help", "'me'"]),
        (["--stop-schedule", "TERM/5s/KILL", "-t", "5"], {}, ["--stop-schedule", "-t", "exclude"]),
        (
            [],
            {"AGENT_INIT_STOP_SCHEDULE": "TERM", "AGENT_INIT_GRACE": "5"},
            ["AGENT_INIT_STOP_SCHEDULE", "AGENT_INIT_GRACE", "exclude"],
        ),
        (["--stop-delay", "20s"], {"AGENT_INIT_GRACE": "10s"}, ["--stop-delay", "20s", "10s", "AGENT_INIT_GRACE"]),
        (["-t", "10s"], {"AGENT_INIT_STOP_DELAY": "20s"}, ["AGENT_INIT_STOP_DELAY", "20s", "10s", "-t"]),
        (["--stop-on", "KILL"], {}, ["--stop-on", "'KILL'", "cannot be caught"]),
    ],
)
def test_other_mistakes(
    started: Start, tmp_path: Path, words: list[str], variables: dict[str, str], told: list[str]
) -> None:
    init = started(*words, command=touch(tmp_path), env=clean_environment(**variables))
    refused(init, tmp_path, *told)


@pytest.mark.parametrize("words", [[], ["--"], ["-v"], ["-t", "5s"]], ids=str)
def test_no_command(started: Start, tmp_path: Path, words: list[str]) -> None:
    refused(started(*words), tmp_path, "no command", "usage: agent-init [OPTIONS] [--] COMMAND [ARG]...")


@pytest.mark.parametrize("flag", FLAGS)
def test_a_missing_value(start: Start, tmp_path: Path, flag: str) -> None:
    refused(start(flag, process1=False), tmp_path, f"{flag} needs a value: ")


def test_bytes_that_are_no_text(started: Start, tmp_path: Path) -> None:
    refused(started("--grace", "\udcff", command=touch(tmp_path)), tmp_path, "--grace", "\\udcff")


LOCALES = [{"LC_ALL": "C"}, {"PYTHONPATH": "/app"}, {"PYTHONUTF8": "0", "LC_ALL": "POSIX"}]


@pytest.mark.parametrize("env", LOCALES, ids=str)
def test_the_locale_does_not_matter(started: Start, tmp_path: Path, env: dict[str, str]) -> None:
    """What the locale has no character for is shown as bytes."""
    init = started("--grace", WRONG, command=touch(tmp_path), env=clean_environment(**env))
    refused(init, tmp_path, "--grace: '5", SHOWN[2:], "accepted: ")


@pytest.mark.parametrize("closing", ["2>&-", "2>/dev/full", "0<&- 1>&- 2>&-"])
def test_where_nobody_can_be_told_the_code_is_the_same(started: Start, tmp_path: Path, closing: str) -> None:
    before = ["sh", "-c", f'exec "$@" {closing}', "sh"]
    init = started("--no-such", command=touch(tmp_path), before=before)
    assert init.wait() == 125
    assert init.stderr == ""
    assert not (tmp_path / "ran").exists()


def test_a_stderr_that_nobody_reads_does_not_hold_it_up(start: Start, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    init = start("--no-such", command=touch(tmp_path), process1=False, stderr=writer)
    os.close(writer)
    assert init.wait() == 125
    os.close(reader)
    assert not (tmp_path / "ran").exists()


def test_help_and_version_start_nothing(tmp_path: Path) -> None:
    for flag, word in (("--help", "COMMAND [ARG]..."), ("-h", "--grace"), ("--version", "agent-init "), ("-V", "0.")):
        ran = subprocess.run([AGENT_INIT, flag, *touch(tmp_path)], capture_output=True, text=True, timeout=30)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert word in ran.stdout
    assert not (tmp_path / "ran").exists()
    assert len(ran.stdout.splitlines()) == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(shell: str) -> None:
    env = clean_environment(_AGENT_INIT_COMPLETE=f"{shell}_source")
    ran = subprocess.run([AGENT_INIT], capture_output=True, text=True, timeout=30, env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "_AGENT_INIT_COMPLETE" in ran.stdout


def test_a_completion_lists_options() -> None:
    env = clean_environment(_AGENT_INIT_COMPLETE="bash_complete", COMP_WORDS="agent-init --stop-s", COMP_CWORD="1")
    ran = subprocess.run([AGENT_INIT], capture_output=True, text=True, timeout=30, env=env)
    assert ran.stdout.split() == ["plain,--stop-signal", "plain,--stop-schedule"]
