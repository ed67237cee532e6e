"""The man pages are made from the click definitions, and man(1) has nothing to complain of."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from entrypoint import cli, options
from entrypoint.ctl import commands

MANUAL = Path(__file__).parents[2] / "launcher" / "manual.py"
NAMES = ("agent-init.1", "agent-initctl.1")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    written = runpy.run_path(str(MANUAL))["write"](tmp_path_factory.mktemp("man"))
    return {path.name: path for path in written}


def shown(page: Path, *arguments: str) -> tuple[str, str]:
    """What man(1) prints of a page, and its warnings."""
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    env = {**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": "", "MANPAGER": "cat"}
    ran = subprocess.run(
        ["man", *arguments, "-l", str(page)], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    return ran.stdout, ran.stderr


@pytest.mark.parametrize("name", NAMES)
def test_man_shows_each_page_without_a_warning(pages: dict[str, Path], name: str) -> None:
    text, warnings = shown(pages[name], "--warnings")
    assert warnings == ""
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"):
        assert f"\n{section}\n" in text
    assert "\\" not in text


@pytest.mark.parametrize("name", NAMES)
def test_mandoc_finds_nothing_wrong(pages: dict[str, Path], name: str) -> None:
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    ran = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", pages[name]], capture_output=True, text=True)
    assert ran.stdout + ran.stderr == ""


def test_every_option_of_agent_init_is_there(pages: dict[str, Path]) -> None:
    text = " ".join(shown(pages["agent-init.1"])[0].replace("\u2010\n", "").split())
    for option in options.OPTIONS:
        assert all(flag in text for flag in (*option.flags, *option.constants))
    assert "run COMMAND as the child of process 1" in text
    assert cli.NAME in text


def test_every_command_of_agent_initctl_is_there(pages: dict[str, Path]) -> None:
    source = pages["agent-initctl.1"].read_text()
    context = click.Context(commands.group)
    for name in commands.group.list_commands(context):
        command = commands.group.get_command(context, name)
        assert command is not None
        assert f"\\fB{name}\\fP" in source
        flags = [flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")]
        assert all(flag.replace("-", r"\-") in source for flag in flags)
    assert source.count(r"\-\-timeout\fP") == 1  # it is one of every command that asks agent-init


def test_text_with_the_meanings_of_roff_is_escaped() -> None:
    escape = runpy.run_path(str(MANUAL))["_text"]
    assert escape(".so 'x' \\ -") == r"\&.so \(aqx\(aq \e \-"
    assert escape("'x'") == r"\(aqx\(aq"
    assert escape("") == ""
