"""How each platform is recognised, and how long it waits before its own SIGKILL."""

from __future__ import annotations

import pytest

from entrypoint import platforms

# From each platform's documentation: how it is recognised, and the seconds before its own SIGKILL.
TABLE: list[tuple[str, dict[str, str], tuple[str, ...], float]] = [
    ("Azure Container Apps", {"CONTAINER_APP_NAME": "agent"}, (), 30),
    ("Kubernetes", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, (), 30),
    ("Cloud Run jobs", {"CLOUD_RUN_JOB": "agent"}, (), 10),
    ("Modal", {"MODAL_TASK_ID": "ta-1"}, (), 30),
    ("ECS", {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x"}, (), 30),
    ("Cloud Run", {"K_SERVICE": "agent"}, (), 10),
    ("Fly.io", {"FLY_MACHINE_ID": "1"}, (), 5),
    ("Fly.io", {"FLY_APP_NAME": "agent"}, (), 5),
    ("Nomad", {"NOMAD_ALLOC_ID": "1"}, (), 5),
    ("Heroku", {"DYNO": "worker.1"}, (), 30),
    ("Render", {"RENDER": "true"}, (), 30),
    ("Railway", {"RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "3"}, (), 3),
    ("Railway", {"RAILWAY_ENVIRONMENT_ID": "0f2a"}, (), 3),
    ("Docker", {}, ("/.dockerenv",), 10),
    ("Podman", {}, ("/run/.containerenv",), 10),
    ("Podman", {"container": "podman"}, (), 10),
]


def recognise(*files: str, **environment: str) -> tuple[str, float, str] | None:
    return platforms.recognise(environment, lambda path: path in files)


@pytest.mark.parametrize(("name", "environment", "files", "seconds"), TABLE)
def test_a_platform_is_recognised_with_the_time_it_waits(
    name: str, environment: dict[str, str], files: tuple[str, ...], seconds: float
) -> None:
    whose = "as set" if "RAILWAY_DEPLOYMENT_DRAINING_SECONDS" in environment else "unless raised"
    assert recognise(*files, **environment) == (name, seconds, whose)


def test_every_variable_and_file_is_in_this_table() -> None:
    variables = {variable for _, environment, _, _ in TABLE for variable in environment}
    files = {path for _, _, paths, _ in TABLE for path in paths}
    assert {variable for variable, _, _ in platforms.BY_VARIABLE} == variables - {"container"}
    assert {path for path, _, _ in platforms.BY_FILE} == files


@pytest.mark.parametrize(
    ("value", "seconds", "whose"),
    [
        ("45", 45, "as set"),
        ("3", 3, "as set"),
        ("1", 1, "as set"),
        ("0", 0, "as set"),
        ("3600", 3600, "as set"),
        ("soon", 3, "unless raised"),
        ("-5", 3, "unless raised"),
        ("\u0663", 3, "unless raised"),
    ],
)
def test_railways_limit_is_the_value_of_its_variable(value: str, seconds: float, whose: str) -> None:
    assert recognise(RAILWAY_DEPLOYMENT_DRAINING_SECONDS=value) == ("Railway", seconds, whose)


def test_an_orchestrator_wins_over_the_engine_below_it() -> None:
    both = ("/.dockerenv", "/run/.containerenv")
    assert recognise(*both, KUBERNETES_SERVICE_HOST="x") == ("Kubernetes", 30, "unless raised")
    assert recognise("/.dockerenv", NOMAD_ALLOC_ID="x") == ("Nomad", 5, "unless raised")


@pytest.mark.parametrize("variable", [name for name, _, _ in platforms.BY_VARIABLE])
def test_a_platform_is_not_recognised_by_an_empty_variable(variable: str) -> None:
    assert recognise(**{variable: ""}) is None


def test_similar_variables_are_not_a_platform() -> None:
    assert recognise(container="lxc", KUBERNETES_PORT="1", FLY="1") is None
    assert recognise() is None
