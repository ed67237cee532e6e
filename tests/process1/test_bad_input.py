"""A usage error prints one line with the value and what is accepted, exits with 125 and starts no agent."""

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

INVALID = "5\u00fcx\n\x1b[31m"  # not a value of any option
INVALID_AS_PRINTED = "5\u00fcx\\n\\x1b[31m"
HUGE = "9" * 100_000


def touch_command(tmp_path: Path) -> list[str]:
    """A command that creates a file when it runs."""
    return ["--", "touch", str(tmp_path / "ran")]


def assert_refused(init: Init, tmp_path: Path, *texts: str) -> None:
    assert init.wait() == 125, init.stderr
    assert init.stderr.count("\n") == 1, init.stderr
    [line] = init.stderr.splitlines()
    assert line.startswith("agent-init: ")
    assert line.isprintable()
    assert len(line) < 1500
    for text in texts:
        assert text in line
    assert not (tmp_path / "ran").exists()
    assert not init.remaining_processes()


FLAGS = [flag for option in options.OPTIONS for flag in option.flags]
VARIABLES = [option.variable for option in options.OPTIONS]


@pytest.mark.parametrize("flag", FLAGS)
def test_invalid_flag_value_is_refused(start: Start, tmp_path: Path, flag: str) -> None:
    for text in (INVALID, HUGE, "", "+1"):
        init = start(flag, text, command=touch_command(tmp_path), process1=False)
        assert_refused(init, tmp_path, f"{flag}: ", "accepted: ", INVALID_AS_PRINTED if text == INVALID else text[:20])


@pytest.mark.parametrize("variable", VARIABLES)
def test_invalid_variable_value_is_refused(start: Start, tmp_path: Path, variable: str) -> None:
    for text in (INVALID, HUGE, "+1"):
        init = start(command=touch_command(tmp_path), process1=False, env=clean_environment(**{variable: text}))
        # A variable can hold several values, separated by blanks; the first invalid one is named.
        assert_refused(
            init, tmp_path, f"{variable}: ", "accepted: ", INVALID_AS_PRINTED[:3] if text == INVALID else text[:20]
        )


@pytest.mark.parametrize("variable", VARIABLES)
def test_empty_variable_counts_as_unset(start: Start, tmp_path: Path, variable: str) -> None:
    init = start(command=touch_command(tmp_path), process1=False, env=clean_environment(**{variable: ""}))
    assert init.wait() == 0
    assert not init.lines("warning")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("argv", "variables", "expected"),
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
def test_other_usage_error_is_refused(
    start_in_role: Start, tmp_path: Path, argv: list[str], variables: dict[str, str], expected: list[str]
) -> None:
    init = start_in_role(*argv, command=touch_command(tmp_path), env=clean_environment(**variables))
    assert_refused(init, tmp_path, *expected)


@pytest.mark.parametrize("argv", [[], ["--"], ["-v"], ["-t", "5s"]], ids=str)
def test_missing_command_is_refused(start_in_role: Start, tmp_path: Path, argv: list[str]) -> None:
    assert_refused(start_in_role(*argv), tmp_path, "no command", "usage: agent-init [OPTIONS] [--] COMMAND [ARG]...")


@pytest.mark.parametrize("flag", FLAGS)
def test_flag_without_its_value_is_refused(start: Start, tmp_path: Path, flag: str) -> None:
    assert_refused(start(flag, process1=False), tmp_path, f"{flag} needs a value: ")


def test_undecodable_value_is_refused(start_in_role: Start, tmp_path: Path) -> None:
    assert_refused(start_in_role("--grace", "\udcff", command=touch_command(tmp_path)), tmp_path, "--grace", "\\udcff")


LOCALES = [{"LC_ALL": "C"}, {"PYTHONPATH": "/app"}, {"PYTHONUTF8": "0", "LC_ALL": "POSIX"}]


@pytest.mark.parametrize("env", LOCALES, ids=str)
def test_usage_error_does_not_depend_on_the_locale(start_in_role: Start, tmp_path: Path, env: dict[str, str]) -> None:
    """A character that the locale lacks is printed as bytes."""
    init = start_in_role("--grace", INVALID, command=touch_command(tmp_path), env=clean_environment(**env))
    assert_refused(init, tmp_path, "--grace: '5", INVALID_AS_PRINTED[2:], "accepted: ")


@pytest.mark.parametrize("closing", ["2>&-", "2>/dev/full", "0<&- 1>&- 2>&-"])
def test_exit_code_is_125_when_stderr_cannot_be_written(start_in_role: Start, tmp_path: Path, closing: str) -> None:
    before = ["sh", "-c", f'exec "$@" {closing}', "sh"]
    init = start_in_role("--no-such", command=touch_command(tmp_path), before=before)
    assert init.wait() == 125
    assert init.stderr == ""
    assert not (tmp_path / "ran").exists()


def test_full_stderr_pipe_does_not_delay_a_usage_error(start: Start, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    init = start("--no-such", command=touch_command(tmp_path), process1=False, stderr=writer)
    os.close(writer)
    assert init.wait() == 125
    os.close(reader)
    assert not (tmp_path / "ran").exists()


def test_help_and_version_start_no_agent(tmp_path: Path) -> None:
    for flag, word in (("--help", "COMMAND [ARG]..."), ("-h", "--grace"), ("--version", "agent-init "), ("-V", "0.")):
        ran = subprocess.run([AGENT_INIT, flag, *touch_command(tmp_path)], capture_output=True, text=True, timeout=30)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert word in ran.stdout
    assert not (tmp_path / "ran").exists()
    assert len(ran.stdout.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_what_cannot_be_printed_is_one_line(flag: str) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run([AGENT_INIT, flag], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    line = "agent-init: cannot write to stdout: No space left on device\n"
    assert (ran.returncode, ran.stderr) == (125, line)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        ran = subprocess.run([AGENT_INIT, flag], stdout=closed, stderr=subprocess.PIPE, text=True, timeout=30)
    assert (ran.returncode, ran.stderr) == (1, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_script_is_printed(shell: str) -> None:
    env = clean_environment(_AGENT_INIT_COMPLETE=f"{shell}_source")
    ran = subprocess.run([AGENT_INIT], capture_output=True, text=True, timeout=30, env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "_AGENT_INIT_COMPLETE" in ran.stdout


def test_shell_completion_lists_options() -> None:
    env = clean_environment(_AGENT_INIT_COMPLETE="bash_complete", COMP_WORDS="agent-init --stop-s", COMP_CWORD="1")
    ran = subprocess.run([AGENT_INIT], capture_output=True, text=True, timeout=30, env=env)
    assert ran.stdout.split() == ["plain,--stop-signal", "plain,--stop-schedule"]
