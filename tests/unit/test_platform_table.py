"""Platforms that share the variables of another one, or have several kinds of workload."""

from __future__ import annotations

import pytest

from entrypoint import platforms


@pytest.mark.parametrize(
    ("environment", "name", "seconds"),
    [
        ({"CONTAINER_APP_NAME": "agent"}, "Azure Container Apps", 30),
        ({"CONTAINER_APP_NAME": "agent", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Azure Container Apps", 30),
        ({"CLOUD_RUN_JOB": "agent"}, "Cloud Run jobs", 10),
        ({"MODAL_TASK_ID": "ta-1"}, "Modal", 30),
    ],
)
@pytest.mark.parametrize("docker", [False, True])
def test_platform_is_recognised(environment: dict[str, str], name: str, seconds: float, *, docker: bool) -> None:
    assert platforms.recognise(environment, lambda _: docker) == (name, seconds, "unless raised")


@pytest.mark.parametrize("variable", ["CONTAINER_APP_NAME", "CLOUD_RUN_JOB", "MODAL_TASK_ID"])
def test_empty_variable_is_no_platform(variable: str) -> None:
    assert platforms.recognise({variable: ""}, lambda _: False) is None
