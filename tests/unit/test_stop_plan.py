"""How a stop goes: an explicit grace, the platform's limit or the default; how the start line explains it; sums."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint import parsed, units
from entrypoint import settings as reader
from entrypoint.init import planning, stop_plan, stop_steps
from entrypoint.signals import ABRT, INT, KILL, TERM

from .test_platforms import TABLE


def plan(*flags: str, files: tuple[str, ...] = (), **environment: str) -> stop_plan.StopPlan:
    settings = reader.read([*flags, "--", "agent"], environment)
    return planning.make(settings, environment, lambda path: path in files)


# --- The plan. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "environment", "files", "seconds"), TABLE)
def test_on_a_platform_there_is_one_report_and_no_deadline(
    name: str, environment: dict[str, str], files: tuple[str, ...], seconds: float
) -> None:
    """No SIGKILL from agent-init, one report 2 s before the platform's limit, and the start line names the limit."""
    made = plan(files=files, **environment)
    assert made.grace == math.inf
    assert made.steps[0] == (TERM, math.inf)
    assert made.limit_report_after == max(0, seconds - 2)
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
        assert (made.grace, made.limit_report_after, made.platform) == (25.0, None, "")
        assert made.why == f"grace 25s ({source})"


def test_the_default_is_ten_seconds_without_a_platform() -> None:
    made = plan()
    assert made.steps == ((TERM, 10.0), (KILL, math.inf))
    assert (made.grace, made.limit_report_after) == (10.0, None)
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
def test_the_limit_that_railway_sets_by_a_variable_is_the_one_planned_for(value: str, seconds: int, whose: str) -> None:
    made = plan(RAILWAY_DEPLOYMENT_DRAINING_SECONDS=value)
    assert made.limit_report_after == max(0, seconds - 2)
    assert f"grace: Railway's own, {units.format_duration(seconds)} {whose}" in made.why


def test_the_stop_signal_is_the_first_step() -> None:
    assert plan("--stop-signal", "INT").steps[0][0] == INT
    assert plan("--stop-signal", "INT", DYNO="web.1").steps[0] == (INT, math.inf)
    assert plan("--stop-signal", "INT", "-t", "5s").steps == ((INT, 5.0), (KILL, math.inf))


def test_a_schedule_replaces_the_grace_and_the_platform() -> None:
    made = plan("--stop-schedule", "TERM/20s/INT/5s/KILL", KUBERNETES_SERVICE_HOST="x")
    assert made.steps == ((TERM, 20.0), (INT, 5.0), (KILL, math.inf))
    assert (made.grace, made.limit_report_after, made.platform) == (25.0, None, "")
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
    with pytest.raises(parsed.UsageError, match=r"^--stop-delay: .* leaves no time .*accepted: ") as refused:
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
    made = planning.make(reader.read(["agent"], environment), environment, lambda _: False)
    assert made.grace == float(f"{seconds:.6f}") == sum(wait for _, wait in made.steps[:-1])
    assert made.steps[-1][0] == KILL


# --- The platform's own figure, if it is known. -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "steps", "why"),
    [
        (
            (),
            ((TERM, 118.0), (KILL, math.inf)),
            "grace 1m58s, to end before the 2m of the platform (--platform-grace); ",
        ),
        (("-t", "50s"), ((TERM, 50.0), (KILL, math.inf)), "grace 50s (-t)"),
        (("-t", "118s"), ((TERM, 118.0), (KILL, math.inf)), "grace 1m58s (-t)"),
        (
            ("-t", "infinity"),
            ((TERM, 118.0), (KILL, math.inf)),
            "grace 1m58s, not infinity (-t), to end before the 2m ",
        ),
        (("--stop-signal", "INT"), ((INT, 118.0), (KILL, math.inf)), "grace 1m58s, to end before the 2m of "),
        (
            ("--stop-schedule", "TERM/20s/INT/5s/KILL"),
            ((TERM, 20.0), (INT, 5.0), (KILL, math.inf)),
            "schedule TERM/20s/INT/5s/KILL (--stop-schedule)",
        ),
        (
            ("--stop-schedule", "TERM/110s/INT/20s/ABRT/5s/KILL"),
            ((TERM, 110.0), (INT, 8.0), (KILL, math.inf)),
            "schedule TERM/1m50s/INT/20s/ABRT/5s/KILL (--stop-schedule), cut to end before the 2m of the platform ",
        ),
        (
            ("--stop-schedule", "TERM/118s/INT/20s/KILL"),
            ((TERM, 118.0), (KILL, math.inf)),
            "schedule TERM/1m58s/INT/20s/KILL (--stop-schedule), cut ",
        ),
        (("--stop-schedule", "TERM"), ((TERM, 118.0), (KILL, math.inf)), "schedule TERM (--stop-schedule), cut "),
        (("--stop-schedule", "TERM/0/KILL"), ((TERM, 0.0), (KILL, math.inf)), "schedule TERM/0s/KILL (--stop-sch"),
        (("--stop-schedule", "KILL"), ((KILL, math.inf),), "schedule KILL (--stop-schedule)"),
    ],
)
@pytest.mark.parametrize("platform", ["", "KUBERNETES_SERVICE_HOST"])
def test_no_kill_comes_after_the_platforms(
    flags: tuple[str, ...], steps: tuple[tuple[int, float], ...], why: str, platform: str
) -> None:
    environment = {platform: "x"} if platform else {}
    settings = reader.read(["--platform-grace", "2m", *flags, "--", "agent"], environment)
    made = planning.make(settings, environment, lambda _: False)
    assert made.steps == steps
    assert made.why.startswith(why)
    assert (made.limit, made.max_grace) == (None, 118.0)
    assert stop_steps.seconds_to_kill(made.steps) <= 118


@pytest.mark.parametrize(("known", "latest"), [("8s", 6.0), ("5s", 3.75), ("1s", 0.75), ("30s", 28.0), ("0", math.inf)])
def test_the_latest_kill_leaves_time_for_the_end(known: str, latest: float) -> None:
    assert reader.read(["agent"], {"AGENT_INIT_PLATFORM_GRACE": known}).latest_kill == latest


def test_more_time_ends_with_the_platforms() -> None:
    assert plan("--platform-grace", "2m", "--max-grace", "1m").max_grace == 60
    assert plan("--platform-grace", "2m", "--max-grace", "1h").max_grace == 118
    assert plan("--max-grace", "1h").max_grace == 3600


def test_a_stop_delay_has_to_end_before_the_platforms_time() -> None:
    assert plan("--platform-grace", "20s", "--stop-delay", "17s").steps[0] == (TERM, 18.0)
    with pytest.raises(
        parsed.UsageError, match=r"^--stop-delay: 18s leaves no time .*less than 18s \(grace 18s, to end"
    ):
        plan("--platform-grace", "20s", "--stop-delay", "18s")


# --- The arithmetic of a stop. --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "seconds"),
    [
        (["-t", "10s"], 8.5),
        (["-t", "4s"], 3.0),
        (["-t", "10s", "--stop-delay", "4s"], 4.5),
        (["-t", "infinity"], math.inf),
        (["-t", "infinity", "--stop-delay", "4s"], math.inf),
        (["-t", "0"], 0.0),
        (["--stop-schedule", "TERM/20s/INT/5s/KILL"], 18.5),
        (["--stop-schedule", "TERM/20s/INT/5s/KILL", "--stop-delay", "18s"], 1.5),
        (["--stop-schedule", "TERM"], math.inf),
        (["--platform-grace", "62s"], 58.5),
        (["--platform-grace", "62s", "--stop-delay", "5s"], 53.5),
        (["--platform-grace", "62s", "-t", "10s"], 8.5),
        (["--platform-grace", "0"], None),
        ([], None),
        (["--grace", "auto"], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_agent_has_the_time_until_the_stall_report_before_the_next_step(
    flags: list[str], seconds: float | None
) -> None:
    assert stop_steps.stop_seconds(reader.read([*flags, "--", "agent"], {})) == seconds


@pytest.mark.parametrize(
    ("wait", "seconds"), [(0.0, 0.0), (0.8, 0.2), (4.0, 1.0), (6.0, 1.5), (6.1, 1.5), (math.inf, 1.5)]
)
def test_a_report_gets_a_quarter_of_the_wait_and_no_more_than_it_needs(wait: float, seconds: float) -> None:
    assert stop_steps.report_seconds(wait) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("steps", "to_kill", "to_last"),
    [
        ([], math.inf, 0),
        ([(KILL, math.inf)], 0, 0),
        ([(TERM, math.inf)], math.inf, 0),
        ([(TERM, 5.0), (INT, 2.0), (KILL, math.inf)], 7, 7),
        ([(TERM, 5.0), (INT, 2.0)], math.inf, 5),
        ([(TERM, math.inf), (KILL, math.inf)], math.inf, math.inf),
    ],
)
def test_the_time_to_the_last_step_is_that_to_the_kill_if_it_is_one(
    steps: list[tuple[int, float]], to_kill: float, to_last: float
) -> None:
    assert (stop_steps.seconds_to_kill(steps), stop_steps.seconds_to_last(steps)) == (to_kill, to_last)


def test_a_delay_counts_into_the_grace() -> None:
    steps = ((TERM, 5.0), (INT, 2.0), (KILL, math.inf))
    delayed = list(stop_steps.with_delay(steps, 3.0))
    assert delayed == [(TERM, 2.0), (INT, 2.0), (KILL, math.inf)]
    assert stop_steps.seconds_to_kill(delayed) + 3.0 == stop_steps.seconds_to_kill(steps)
    assert list(stop_steps.with_delay(((TERM, math.inf), (KILL, math.inf)), 3.0)) == [
        (TERM, math.inf),
        (KILL, math.inf),
    ]


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        ("TERM/5s/KILL", [(ABRT, 5.0), (KILL, math.inf)]),
        ("TERM/5s/INT/2s/KILL", [(ABRT, 5.0), (INT, 2.0), (KILL, math.inf)]),
        ("TERM", [(ABRT, 10.0), (KILL, math.inf)]),
        ("KILL", [(ABRT, 10.0), (KILL, math.inf)]),
        ("TERM/5s/INT", [(ABRT, 5.0), (INT, 10.0), (KILL, math.inf)]),
        ("TERM/infinity/KILL", [(ABRT, 10.0), (KILL, 10.0)]),
        ("TERM/500ms/INT/infinity/KILL", [(ABRT, 0.5), (INT, 10.0), (KILL, 10.0)]),
    ],
)
def test_the_schedule_of_a_hang_begins_with_its_signal_and_ends_with_kill(
    schedule: str, steps: list[tuple[int, float]]
) -> None:
    """A wait without an end becomes the default grace; what follows the KILL is never waited for."""
    made = list(stop_plan.of_a_hang(plan("--stop-schedule", schedule), ABRT))
    waited_for = [(number, math.inf if number == KILL else wait) for number, wait in made]
    assert waited_for == [(number, math.inf if number == KILL else wait) for number, wait in steps]
    assert len(made) == len(steps)
    assert stop_steps.seconds_to_kill(made) < math.inf


def test_the_middle_of_two_times() -> None:
    assert stop_plan.middle(10.0, 25.0) == 17.5
    assert stop_plan.middle(10.0, math.inf) == math.inf


@pytest.mark.parametrize(
    ("cpus", "seconds", "before_10s", "limit_report"),
    [
        (None, 1.5, 1.5, 28.0),
        (0.0, 1.5, 1.5, 28.0),
        (4.0, 1.5, 1.5, 28.0),
        (0.5, 1.5, 1.5, 28.0),
        (0.25, 3.0, 3.0, 26.5),
        (0.1, 7.5, 5.0, 22.0),
        (0.01, 10.0, 5.0, 19.5),
    ],
)
def test_with_little_processor_time_a_report_gets_more_of_the_wait(
    cpus: float | None, seconds: float, before_10s: float, limit_report: float
) -> None:
    made = plan(KUBERNETES_SERVICE_HOST="x")
    made.allow_report(cpus)
    assert made.report_seconds == pytest.approx(seconds)
    assert made.report_before(10.0) == pytest.approx(before_10s)
    assert made.limit_report_after == pytest.approx(limit_report)
    own = plan("-t", "10s")
    own.allow_report(cpus)
    assert own.limit_report_after is None


def test_a_report_before_a_short_limit_comes_at_once() -> None:
    made = plan(FLY_MACHINE_ID="x")
    made.allow_report(0.05)
    assert made.limit_report_after == 0
