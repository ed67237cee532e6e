"""Rehearsals for tests: one by hand, as a real agent gives it, and any that can be, as a hypothesis strategy."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from hypothesis import strategies as st

from entrypoint.rehearse.model import (
    Advice,
    BrokenLine,
    Event,
    Life,
    Mode,
    Rehearsal,
    Run,
    Scenario,
    Verdict,
)

T = TypeVar("T")

HOSTILE = (
    "<script>alert(1)</script>",
    "</title><script src=//example.org/x.js></script>",
    '" onload="alert(1)',
    "<!-- ]]> &amp; &#0; \x00\x0b\ufffe\uffff",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J",
    "\u202egnp.exe \u2028\u2029",
    "日本語のプロセス名前がここに長く続く",
    "not UTF-8: \udcff\udc80",
    "a" * 300,
    "${page} $$ %s {0}",
    "",
)
# Any character but the first halves of surrogate pairs: no decoder of a file or of `ps` makes these.
CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]), st.integers(0xDC80, 0xDCFF).map(chr), st.sampled_from("<>&\"'\x1b\x00\n")
)
TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(CHARACTERS, max_size=12))
SECONDS = st.one_of(st.sampled_from((0.0, 0.2, 1.0, 60.0, 90.0)), st.floats(0, 86400, allow_nan=False))
MAYBE_SECONDS = st.none() | SECONDS
PIDS = st.integers(1, 1 << 22)
KINDS = st.sampled_from(("up", "request", "signal", "deadline", "kill", "end", "work-end", "break", "note")) | TEXT

EVENTS = st.builds(Event, SECONDS, KINDS, TEXT, st.none() | PIDS)
LIVES = st.builds(Life, PIDS, PIDS, TEXT, SECONDS, MAYBE_SECONDS)
BROKEN_LINES = st.builds(BrokenLine, SECONDS, TEXT, TEXT)
ADVICE = st.builds(Advice, st.sampled_from(("Kubernetes", "Compose", "Dockerfile", "environment")) | TEXT, TEXT, TEXT)
SCENARIOS = st.builds(Scenario, TEXT, TEXT, TEXT, st.booleans())


def tuples(values: st.SearchStrategy[T], most: int = 2) -> st.SearchStrategy[tuple[T, ...]]:
    """Tuples of up to `most` values."""
    return st.lists(values, max_size=most).map(tuple)


def runs_of(scenarios: list[Scenario]) -> st.SearchStrategy[Run]:
    """Any run of one of these."""
    return st.builds(
        Run,
        scenario=st.sampled_from(scenarios),
        number=st.integers(1, 40),
        mode=st.sampled_from(Mode),
        verdict=st.sampled_from(Verdict),
        reasons=tuples(TEXT),
        up_after=MAYBE_SECONDS,
        request_at=MAYBE_SECONDS,
        end_at=MAYBE_SECONDS,
        exit_code=st.none() | st.integers(0, 255),
        killed=st.booleans(),
        work_kept=st.none() | st.booleans(),
        left_over=tuples(TEXT),
        held_up_by=st.none() | TEXT,
        broken_lines=tuples(BROKEN_LINES),
        events=tuples(EVENTS, 4),
        lives=tuples(LIVES, 4),
        folder=st.none() | st.text("abc/ é", min_size=1, max_size=20).map(Path),
    )


@st.composite
def rehearsals(draw: st.DrawFn) -> Rehearsal:
    """Any rehearsal. No two scenarios have the same name."""
    scenarios = draw(st.lists(SCENARIOS, min_size=1, max_size=4, unique_by=lambda scenario: scenario.name))
    return Rehearsal(
        command=draw(tuples(TEXT)),
        work=draw(st.none() | TEXT),
        up=draw(TEXT),
        seed=draw(st.integers(0, 1 << 32)),
        runs=draw(tuples(runs_of(scenarios), 4)),
        advice=draw(tuples(ADVICE)),
        notes=draw(tuples(TEXT)),
        versions=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        began=draw(TEXT),
    )


TERM = Scenario("term", "TERM", "docker stop, Kubernetes", counts=True)
TWICE = Scenario("term-twice", "TERM twice, 1 s apart", "containerd restarted in a drain", counts=True)
EARLY = Scenario("early", "TERM before it is up, at 20 % of the start", "a deploy rolled back at once", counts=True)
SHORT = Scenario("short-grace", "a grace that is too short", "docker stop without -t", counts=False)
OOM = Scenario("oom", "out of memory during the stop", "a container's memory limit", counts=True)


def run(scenario: Scenario = TERM, number: int = 1, drain: float | None = 1.25, **more: object) -> Run:
    """A run that held, as process 1, with a request after 2 s."""
    values: dict[str, object] = {
        "scenario": scenario,
        "number": number,
        "mode": Mode.PROCESS_1,
        "verdict": Verdict.HELD,
        "reasons": (),
        "up_after": 1.5,
        "request_at": 2.0,
        "end_at": None if drain is None else 2.0 + drain,
        "exit_code": 0,
        "killed": False,
        "work_kept": True,
        "left_over": (),
        "held_up_by": None,
        **more,
    }
    if "events" not in more and drain is not None:
        values["events"] = (
            Event(1.5, "up", "READY=1", 2),
            Event(2.0, "request", "TERM to process 1"),
            Event(2.0, "signal", "TERM to python agent.py (pid 2)", 2),
            Event(62.0, "deadline", "KILL after 1m"),
            Event(2.0 + drain, "end", "the agent exited with code 0"),
        )
    if "lives" not in more and drain is not None:
        values["lives"] = (
            Life(2, 1, "python agent.py", 0.0, 2.0 + drain),
            Life(3, 2, "ffmpeg", 1.1, 2.0 + drain / 2),
        )
    return Run(**values)  # type: ignore[arg-type]


KILLED = run(
    TWICE,
    drain=60.02,
    verdict=Verdict.LOST,
    reasons=(
        "killed at the deadline, 1m after the stop request; still running: python agent.py, chromium",
        "the work failed, with exit code 3",
        'printed "RuntimeError: no running event loop" after the stop request, and 1 more line',
    ),
    exit_code=137,
    killed=True,
    work_kept=False,
    held_up_by="python agent.py (pid 2), the agent, 1m2s old, sleeping, waits in futex_wait_queue",
    broken_lines=(
        BrokenLine(2.4, "RuntimeError: no running event loop", "no running event loop"),
        BrokenLine(2.6, "Task was destroyed but it is pending!", "Task was destroyed"),
    ),
    events=(
        Event(1.5, "up", "READY=1", 2),
        Event(2.0, "request", "TERM to process 1"),
        Event(2.0, "signal", "TERM to python agent.py (pid 2)", 2),
        Event(3.0, "signal", "TERM to python agent.py (pid 2)", 2),
        Event(62.0, "deadline", "1m after the request"),
        Event(62.0, "kill", "KILL to all processes"),
        Event(62.02, "end", "the agent was killed by SIGKILL"),
        Event(62.03, "work-end", "exit code 3"),
    ),
    lives=(
        Life(2, 1, "python agent.py", 0.0, 62.02),
        Life(3, 2, "ffmpeg", 1.1, 2.9),
        Life(4, 2, "chromium", 1.2, None),
    ),
)
EXAMPLE = Rehearsal(
    command=("python", "agent.py", "--room", "a b"),
    work="python call.py",
    up="READY=1",
    seed=7,
    runs=(
        run(),
        KILLED,
        run(EARLY, drain=0.21, work_kept=None, request_at=0.3, up_after=None, end_at=0.51, exit_code=143),
        run(SHORT, drain=2.0, verdict=Verdict.INFORMATIONAL, killed=True, exit_code=137, work_kept=False),
        run(
            OOM,
            drain=None,
            verdict=Verdict.SKIPPED,
            reasons=("no control group can be made here",),
            up_after=None,
            request_at=None,
            exit_code=None,
            work_kept=None,
        ),
    ),
    advice=(
        Advice(
            "Kubernetes",
            "terminationGracePeriodSeconds: 75",
            "The longest drain seen with this work was 1m; a real call may be longer.",
        ),
        Advice("Kubernetes", 'env: [{name: AGENT_INIT_GRACE, value: "73s"}]', "Less than the pod's grace period."),
        Advice("Compose", "stop_grace_period: 75s", "Docker waits 10 s by default."),
    ),
    notes=("A test call is shorter than a real one: take the grace period as a lower bound.",),
    versions={"agent-init": "1.0", "python": "3.11.7"},
    began="2026-11-26T13:40:00Z",
)
