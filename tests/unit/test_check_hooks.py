"""The hook for pre-commit and the action for GitHub name what there is."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from entrypoint.check import formats
from entrypoint.ctl import commands

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_hook_takes_the_files_that_have_a_name_of_their_own() -> None:
    (hook,) = load(".pre-commit-hooks.yaml")
    assert hook["entry"] == "agent-initctl check"
    assert hook["require_serial"]
    pattern = re.compile(hook["files"])
    for name in (
        "Dockerfile", "a/Dockerfile.prod", "Dockerfile-dev", "worker.Dockerfile", "Containerfile", "compose.yaml",
        "docker-compose.prod.yml", "x/compose.override.yaml", "fly.toml", "fly.staging.toml",
    ):  # fmt: skip
        assert pattern.search(name), name
    for name in ("Dockerfile/x", "my-compose.yaml", "composer.yml", "butterfly.toml", "values.yaml", "README.md"):
        assert not pattern.search(name), name


def test_the_action_has_the_formats_and_options_that_there_are() -> None:
    action = load("action.yml")
    assert action["runs"]["using"] == "composite"
    (step,) = action["runs"]["steps"]
    assert set(step["env"].values()) == {"${{ inputs." + name + " }}" for name in action["inputs"]}
    for name in formats.FORMATS:
        assert name in action["inputs"]["format"]["description"]
    assert "check" in commands.group.commands


@pytest.mark.parametrize("output", ["", "out"])
def test_the_action_expands_patterns_and_passes_the_exit_code_on(tmp_path: Path, output: str) -> None:
    (step,) = load("action.yml")["runs"]["steps"]
    binaries = tmp_path / "temp" / "agent-init" / "bin"
    binaries.mkdir(parents=True)
    for name, text in (("pip", 'echo "$@" > "$RUNNER_TEMP/pip"'), ("agent-initctl", 'echo "$@"; exit 1')):
        (binaries / name).write_text(f"#!/bin/sh\n{text}\n")
        (binaries / name).chmod(0o755)
    (tmp_path / "a.yaml").touch()
    (tmp_path / "b.yaml").touch()
    script = step["run"].replace("python3 -m venv", "true")
    env = {"PATH": "/usr/bin:/bin", "RUNNER_TEMP": str(tmp_path / "temp"), "FORMAT": "sarif", "VERSION": "1.2"}
    env |= {"FILES": "Dockerfile\n*.yaml", "OUTPUT": output}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]  # as GitHub runs a step
    ours, its = socket.socketpair()  # a runner may have that as a step's stdout; /dev/stdout cannot be opened then
    with ours, its:
        ran = subprocess.run(
            command, cwd=tmp_path, env=env, stdout=its.fileno(), stderr=subprocess.PIPE, text=True, timeout=60
        )
        its.close()
        printed = ours.makefile().read()
    assert ran.returncode == 1, ran.stderr
    written = (tmp_path / output).read_text() if output else ""
    expected = "check --format sarif -- Dockerfile a.yaml b.yaml\n"
    assert (printed, written) == (("", expected) if output else (expected, ""))
    assert (tmp_path / "temp" / "pip").read_text() == "install --quiet agent-init[check]==1.2\n"
