"""The core of the behaviour on a newer Docker: that of Debian 13, with BuildKit and Compose v2.

Its packages are unpacked and run where they lie; runc is the machine's own. The images are built by BuildKit, and the
tests are those of the other modules: what is imported here runs here, on this engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import images
from .conftest import without
from .engine import Engine, NoEngine, private_engine
from .images import EXAMPLE, kept
from .test_compose import compose, test_the_grace_ends_before_composes_own, test_up_scale_down
from .test_docker_company import test_an_exec_session_is_not_signalled, test_below_dockers_own_init
from .test_docker_confined import test_a_health_check_goes_its_own_way, test_confined
from .test_docker_stop import (
    test_a_stop_before_the_agent_is_ready,
    test_an_explicit_grace_is_a_deadline,
    test_another_stop_signal_of_the_image,
    test_docker_kill_with_a_signal_that_the_agent_handles,
    test_docker_restart,
    test_the_agent_gets_one_term_and_its_exit_code_is_told,
    test_the_example_image_as_it_is,
    test_what_the_agent_leaves_behind_is_stopped_too,
)
from .test_docker_terminal import test_a_shell_works_as_ever, test_ctrl_c_reaches_the_agent_once

__all__ = [
    "compose",
    "test_a_health_check_goes_its_own_way",
    "test_a_shell_works_as_ever",
    "test_a_stop_before_the_agent_is_ready",
    "test_an_exec_session_is_not_signalled",
    "test_an_explicit_grace_is_a_deadline",
    "test_another_stop_signal_of_the_image",
    "test_below_dockers_own_init",
    "test_confined",
    "test_ctrl_c_reaches_the_agent_once",
    "test_docker_kill_with_a_signal_that_the_agent_handles",
    "test_docker_restart",
    "test_the_agent_gets_one_term_and_its_exit_code_is_told",
    "test_the_example_image_as_it_is",
    "test_the_grace_ends_before_composes_own",
    "test_up_scale_down",
    "test_what_the_agent_leaves_behind_is_stopped_too",
]

SUITE = "trixie"
PACKAGES = "docker.io,docker-cli,docker-buildx,docker-compose,containerd"
PROGRAMS = ("usr/sbin/dockerd", "usr/bin/docker", "usr/bin/containerd", "usr/bin/containerd-shim-runc-v2")


def unpacked() -> Path:
    """The folder with its packages. Raises NoEngine."""
    if shutil.which("mmdebstrap") is None:
        raise NoEngine("there is no mmdebstrap to fetch a newer Docker with")
    recipe = ("mmdebstrap", "--quiet", "--variant=extract", f"--include={PACKAGES}", SUITE)
    with kept("docker", " ".join(recipe)) as (folder, missing):
        if missing:
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            subprocess.run([*recipe, str(partial)], check=True, stdin=subprocess.DEVNULL)
            partial.rename(folder)
    return folder


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    try:
        debian = unpacked()
        programs, configuration = tmp_path_factory.mktemp("programs"), tmp_path_factory.mktemp("docker")
        for name in PROGRAMS:
            (programs / Path(name).name).symlink_to(debian / name)
        (configuration / "cli-plugins").symlink_to(debian / "usr/libexec/docker/cli-plugins")
        settings = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "DOCKER_CONFIG": str(configuration),
            "DOCKER_BUILDKIT": "1",
        }
        with private_engine(settings) as engine:
            images.build_all(engine)
            yield engine
    except NoEngine as error:
        without(str(error))


def test_it_is_what_it_claims_to_be(engine: Engine) -> None:
    version = engine("version", "--format", "{{.Server.Version}}").stdout
    assert int(version.split(".")[0]) >= 26
    assert engine("compose", "version", "--short").stdout.startswith("2.")
    history = engine("history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Comment}}", EXAMPLE).stdout
    assert "buildkit" in history
