"""The core behaviour on a newer Docker: the one of Debian 13, with BuildKit and Compose v2.

Its packages are unpacked, not installed; runc is the machine's. BuildKit builds the images. The tests are imported from
the other modules and run here on this engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import images
from .conftest import skip_or_fail
from .engine import Engine, NotAvailable, private_engine
from .images import EXAMPLE, cached
from .test_compose import (
    compose,
    test_agent_init_grace_ends_before_compose_stop_grace_period,
    test_three_scaled_agents_stop_gracefully_on_down,
)
from .test_docker_confined import test_confined_container_stops_without_warnings, test_health_check_leftovers_are_reaped
from .test_docker_shared import test_agent_init_works_below_docker_init, test_docker_exec_session_is_not_signalled
from .test_docker_stop import (
    test_agent_gets_one_term_and_its_exit_code_is_passed_on,
    test_docker_kill_with_a_handled_signal_is_forwarded,
    test_docker_restart_stops_and_starts_the_agent,
    test_docker_stop_before_the_agent_is_ready_is_not_lost,
    test_example_image_stops_gracefully,
    test_explicit_grace_is_a_deadline,
    test_leftover_children_are_stopped,
    test_stopsignal_of_the_image_is_a_stop_request,
)
from .test_docker_terminal import test_ctrl_c_reaches_the_agent_once, test_interactive_shell_has_job_control

__all__ = [
    "compose",
    "test_agent_gets_one_term_and_its_exit_code_is_passed_on",
    "test_agent_init_grace_ends_before_compose_stop_grace_period",
    "test_agent_init_works_below_docker_init",
    "test_confined_container_stops_without_warnings",
    "test_ctrl_c_reaches_the_agent_once",
    "test_docker_exec_session_is_not_signalled",
    "test_docker_kill_with_a_handled_signal_is_forwarded",
    "test_docker_restart_stops_and_starts_the_agent",
    "test_docker_stop_before_the_agent_is_ready_is_not_lost",
    "test_example_image_stops_gracefully",
    "test_explicit_grace_is_a_deadline",
    "test_health_check_leftovers_are_reaped",
    "test_interactive_shell_has_job_control",
    "test_leftover_children_are_stopped",
    "test_stopsignal_of_the_image_is_a_stop_request",
    "test_three_scaled_agents_stop_gracefully_on_down",
]

SUITE = "trixie"
PACKAGES = "docker.io,docker-cli,docker-buildx,docker-compose,containerd"
PROGRAMS = ("usr/sbin/dockerd", "usr/bin/docker", "usr/bin/containerd", "usr/bin/containerd-shim-runc-v2")


def unpacked() -> Path:
    """The folder with its packages. Raises NotAvailable."""
    if shutil.which("mmdebstrap") is None:
        raise NotAvailable("downloading a newer Docker takes mmdebstrap")
    recipe = ("mmdebstrap", "--quiet", "--variant=extract", f"--include={PACKAGES}", SUITE)
    with cached("docker", " ".join(recipe)) as (folder, missing):
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
    except NotAvailable as error:
        skip_or_fail(str(error))


def test_environment_is_the_intended_one(engine: Engine) -> None:
    version = engine("version", "--format", "{{.Server.Version}}").stdout
    assert int(version.split(".")[0]) >= 26
    assert engine("compose", "version", "--short").stdout.startswith("2.")
    history = engine("history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Comment}}", EXAMPLE).stdout
    assert "buildkit" in history
