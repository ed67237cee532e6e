"""The deadline of a stop: an explicit one, the platform's or the default; and how the start line explains it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint import platforms, units
from entrypoint import settings as reader
from entrypoint.init import stop_plan as plans

TERM, INT, KILL = 15, 2, 9


def plan(*flags: str, files: tuple[str, ...] = (), **environment: str) -> plans.StopPlan:
    settings = reader.read([*flags, "--", "agent"], environment)
    return plans.make(settings, environment, lambda path: path in files)


# From each platform's documentation: how it is recognised, and the seconds before its own SIGKILL.
TABLE: list[tuple[str, dict[str, str], tuple[str, ...], float]] = [
    ("Kubernetes", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, (), 30),
    ("ECS", {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x"}, (), 30),
    ("Cloud Run", {"K_SERVICE": "agent"}, (), 10),
    ("Fly.io", {"FLY_MACHINE_ID": "1"}, (), 5),
    ("Fly.io", {"FLY_APP_NAME": "agent"}, (), 5),
    ("Nomad", {"NOMAD_ALLOC_ID": "1"}, (), 5),
    ("Heroku", {"DYNO": "worker.1"}, (), 30),
    ("Render", {"RENDER": "true"}, (), 30),
    ("Railway", {"RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "3"}, (), 3),
    ("Docker", {}, ("/.dockerenv",), 10),
    ("Podman", {}, ("/run/.containerenv",), 10),
    ("Podman", {"container": "podman"}, (), 10),
]


@pytest.mark.parametrize(("name", "environment", "files", "seconds"), TABLE)
def test_on_a_platform_there_is_one_report_and_no_deadline(
    name: str, environment: dict[str, str], files: tuple[str, ...], seconds: float
) -> None:
    """No SIGKILL from agent-init, one report 2 s before the platform's limit, and the start line names the limit."""
    made = plan(files=files, **environment)
    assert made.grace == math.inf
    assert made.steps[0] == (TERM, math.inf)
    assert made.report_after == max(0, seconds - 2)
    assert made.platform.startswith(f"{name} ({seconds:g}s")
    assert made.why.startswith(f"grace: {name}'s own, {seconds:g}s ")
    assert made.why.endswith("; AGENT_INIT_GRACE not set")


@pytest.mark.parametrize(("name", "environment", "files", "seconds"), TABLE)
def test_an_explicit_grace_is_a_deadline_everywhere(
    name: str, environment: dict[str, str], files: tuple[str, ...], seconds: float
) -> None:
    for made, source in (
        (plan("--grace", "25s", files=files, **environment), "--grace"),
        (plan("-t25", files=files, **environment), "-t"),
        (plan(files=files, AGENT_INIT_GRACE="25", **environment), "AGENT_INIT_GRACE"),
    ):
        assert made.steps[:2] == ((TERM, 25.0), (KILL, math.inf))
        assert (made.grace, made.report_after, made.platform) == (25.0, None, "")
        assert made.why == f"grace 25s ({source})"


def test_the_default_is_ten_seconds_without_a_platform() -> None:
    made = plan()
    assert made.steps == ((TERM, 10.0), (KILL, math.inf))
    assert (made.grace, made.report_after) == (10.0, None)
    assert "10s" in made.why
    assert "AGENT_INIT_GRACE not set" in made.why


def test_auto_can_be_given_explicitly() -> None:
    assert plan("--grace", "auto").grace == 10
    assert plan("--grace", "auto").why.endswith("--grace auto)")
    assert plan("--grace", "auto", DYNO="web.1").grace == math.inf


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
def test_railway_sets_its_limit_by_a_variable(value: str, seconds: int, whose: str) -> None:
    made = plan(RAILWAY_DEPLOYMENT_DRAINING_SECONDS=value)
    assert made.report_after == max(0, seconds - 2)
    assert f"grace: Railway's own, {units.format_duration(seconds)} {whose}" in made.why


def test_an_orchestrator_wins_over_the_engine_below_it() -> None:
    assert plan(files=("/.dockerenv", "/run/.containerenv"), KUBERNETES_SERVICE_HOST="x").platform.startswith("Kube")
    assert plan(files=("/.dockerenv",), NOMAD_ALLOC_ID="x").platform.startswith("Nomad")


@pytest.mark.parametrize("variable", [name for name, _, _ in platforms.BY_VARIABLE])
def test_a_platform_is_not_recognised_by_an_empty_variable(variable: str) -> None:
    environment = {variable: ""}
    settings = reader.read(["agent"], environment)
    assert plans.make(settings, environment, lambda _: False).grace == 10


def test_similar_variables_are_not_a_platform() -> None:
    assert plan(container="lxc", KUBERNETES_PORT="1", FLY="1").grace == 10


def test_the_stop_signal_is_the_first_step() -> None:
    assert plan("--stop-signal", "INT").steps[0][0] == INT
    assert plan("--stop-signal", "INT", DYNO="web.1").steps[0] == (INT, math.inf)
    assert plan("--stop-signal", "INT", "-t", "5s").steps == ((INT, 5.0), (KILL, math.inf))


def test_a_schedule_replaces_the_grace_and_the_platform() -> None:
    made = plan("--stop-schedule", "TERM/20s/INT/5s/KILL", KUBERNETES_SERVICE_HOST="x")
    assert made.steps == ((TERM, 20.0), (INT, 5.0), (KILL, math.inf))
    assert (made.grace, made.report_after, made.platform) == (25.0, None, "")
    assert made.why == "schedule TERM/20s/INT/5s/KILL (--stop-schedule)"


@pytest.mark.parametrize("schedule", ["TERM", "TERM/5s", "TERM/5s/INT/infinity", "TERM/infinity/KILL"])
def test_a_schedule_without_kill_at_the_end_has_no_deadline(schedule: str) -> None:
    assert plan("--stop-schedule", schedule).grace == math.inf


@pytest.mark.parametrize(
    "flags",
    [
        ["--stop-delay", "10s"],
        ["--stop-delay", "11s"],
        ["--stop-delay", "5s", "-t", "5s"],
        ["--stop-delay", "infinity"],
        ["--stop-delay", "infinity", "-t", "infinity"],
        ["--stop-delay", "5s", "--stop-schedule", "TERM/5s/KILL"],
        ["--stop-delay", "5s", "--stop-schedule", "TERM/INT/50s/KILL"],
    ],
    ids=" ".join,
)
def test_a_stop_delay_that_leaves_no_time_is_refused(flags: list[str]) -> None:
    with pytest.raises(reader.UsageError, match=r"^--stop-delay: .* leaves no time .*accepted: ") as refused:
        plan(*flags)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "flags",
    [
        ["--stop-delay", "9s"],
        ["--stop-delay", "0", "-t", "0"],
        ["--stop-delay", "1h", "-t", "infinity"],
        ["--stop-delay", "4s", "--stop-schedule", "TERM/5s/KILL"],
        ["--stop-delay", "1h", "--stop-schedule", "TERM"],
    ],
    ids=" ".join,
)
def test_a_stop_delay_within_the_grace_is_accepted(flags: list[str]) -> None:
    assert plan(*flags)


@given(st.floats(0, 366 * 86400), st.sampled_from(["", "KUBERNETES_SERVICE_HOST", "RENDER"]))
def test_an_explicit_grace_is_the_time_until_kill(seconds: float, platform: str) -> None:
    environment = {"AGENT_INIT_GRACE": f"{seconds:.6f}", **({platform: "x"} if platform else {})}
    made = plans.make(reader.read(["agent"], environment), environment, lambda _: False)
    assert made.grace == float(f"{seconds:.6f}") == sum(wait for _, wait in made.steps[:-1])
    assert made.steps[-1][0] == KILL
