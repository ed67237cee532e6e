"""The table of a rehearsal: it fits the terminal, says what happened, and cannot control the terminal."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.rehearse import summary, table, text
from entrypoint.rehearse.model import Advice, BrokenLine, Rehearsal, Run, Verdict
from tests.support import rehearsals
from tests.support.rehearsals import EXAMPLE, KILLED, OOM, SHORT, TERM, TWICE, run


def of(*runs: Run, **more: object) -> Rehearsal:
    """A rehearsal with these runs."""
    return dataclasses.replace(EXAMPLE, **{"runs": runs, "advice": (), "notes": (), **more})  # type: ignore[arg-type]


def line_of(shown: str, title: str) -> str:
    (line,) = (line for line in shown.splitlines() if line.startswith(title + "  "))
    return " ".join(line.removeprefix(title).split())


def test_each_scenario_has_a_line_and_what_was_lost_has_its_reasons() -> None:
    shown = table.render(EXAMPLE, 80)
    assert line_of(shown, "TERM") == "by itself 1.25s 0 kept 0 held"
    assert line_of(shown, "TERM twice, 1 s apart") == "killed 1m 137 lost 0 LOST"
    assert line_of(shown, "a grace that is too short") == "killed 2s 137 lost 0 info"
    assert line_of(shown, "out of memory during the stop") == "- - - - - skipped"
    below = shown.partition("TERM twice")[2].splitlines()[1:]
    assert below[:8] == [
        "  - killed at the deadline, 1m after the stop request; still running: python",
        "    agent.py, chromium",
        "  - the work failed, with exit code 3",
        '  - printed "RuntimeError: no running event loop" after the stop request, and 1',
        "    more line",
        "  - held up by python agent.py (pid 2), the agent, 1m2s old, sleeping, waits in",
        "    futex_wait_queue",
        "  - log, 600ms after the request: Task was destroyed but it is pending!",
    ]
    assert "  - no control group can be made here\n" in shown


def test_what_to_write_is_grouped_and_can_be_pasted() -> None:
    shown = table.render(EXAMPLE, 80)
    assert shown.endswith("""
What to write

Kubernetes:
  # The longest drain seen with this work was 1m; a real call may be longer.
  terminationGracePeriodSeconds: 75
  # Less than the pod's grace period.
  env: [{name: AGENT_INIT_GRACE, value: "73s"}]

Compose:
  # Docker waits 10 s by default.
  stop_grace_period: 75s
""")


def test_a_line_to_write_is_never_broken() -> None:
    line = "x: " + "long " * 30 + "\ny: 1"
    shown = table.render(of(run(), advice=(Advice("Compose", line, ""),)), 40)
    assert f"  {line.partition(chr(10))[0].rstrip()}\n  y: 1\n" in shown


def test_several_runs_of_a_scenario_are_one_line() -> None:
    held = [run(drain=seconds, number=number) for number, seconds in enumerate((1.0, 2.0, 9.0), 1)]
    lost = run(drain=60, number=4, verdict=Verdict.LOST, killed=True, work_kept=False, reasons=("too late",) * 2)
    shown = table.render(of(*held, lost), 80)
    assert line_of(shown, "TERM") == "killed 1/4 5.5/60s 0 lost 1/4 0 LOST 1/4"
    assert "  - 1 of 4 runs: too late\n" in shown
    assert "\ndrain: the median and the longest of several runs\n" in shown


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ([], "Nothing was judged: no scenario that counts was run."),
        ([run(SHORT)], "Nothing was judged: no scenario that counts was run."),
        ([run()], "Held: the scenario that counts; the longest drain was 1.25s."),
        ([run(), run(TWICE)], "Held: all 2 scenarios that count; the longest drain was 1.25s."),
        ([run(drain=None, verdict=Verdict.LOST)], "Lost: the scenario that counts did not hold (TERM)."),
        (
            [run(), run(SHORT), run(OOM, drain=None, verdict=Verdict.SKIPPED)],
            "Held: the scenario that counts; the longest drain was 1.25s; 1 skipped.",
        ),
    ],
)
def test_the_summary_is_one_sentence(runs: list[Run], sentence: str) -> None:
    rehearsal = of(*runs)
    assert summary.sentence(rehearsal) == sentence
    assert " ".join(table.render(rehearsal, 40).split()).endswith(sentence)


def test_an_informational_scenario_never_counts_as_lost() -> None:
    rehearsal = of(run(SHORT, verdict=Verdict.LOST, reasons=("killed",)), run())
    shown = table.render(rehearsal, 80)
    assert line_of(shown, SHORT.title).endswith(" info")
    assert "info: for information, not judged" in shown
    assert summary.sentence(rehearsal).startswith("Held: ")


def test_much_evidence_is_cut_short() -> None:
    lines = tuple(BrokenLine(3.0, f"line {number}", "x") for number in range(5))
    reasons = tuple(f"reason {number}" for number in range(6))
    shown = table.render(of(dataclasses.replace(KILLED, reasons=reasons, broken_lines=lines)), 80)
    assert "  - reason 2\n  - and 3 other reasons\n" in shown
    assert "line 2\n  - and 2 lines like these\n" in shown


def test_many_exit_codes_and_long_drains_are_short() -> None:
    runs = [run(number=number, exit_code=code, drain=1234.5) for number, code in enumerate((143, 143, 0, 1, 2), 1)]
    assert line_of(table.render(of(*runs), 80), "TERM") == "by itself 1234/1234s 143,0,1 kept 0 held"


def test_a_time_before_the_request_or_without_one() -> None:
    assert summary.since_request(run(), 1.5) == "500ms before the request"
    assert summary.since_request(run(request_at=None), 1.5) == "1.5s after the start"


def test_colour_marks_the_verdict_and_takes_no_room() -> None:
    shown = table.render(EXAMPLE, 80, color=True)
    assert "\x1b[1;31mLOST\x1b[0m" in shown
    assert text.ANSI.sub("", shown) == table.render(EXAMPLE, 80)
    assert text.ANSI.sub("", table.render(EXAMPLE, 40, color=True)) == table.render(EXAMPLE, 40)


@settings(max_examples=30)
@given(rehearsals.rehearsals(), st.integers(20, 200))
def test_it_fits_and_cannot_control_the_terminal(rehearsal: Rehearsal, width: int) -> None:
    shown = table.render(rehearsal, width)
    pasted = {f"  {line}".rstrip() for advice in rehearsal.advice for line in text.printable_lines(advice.line)}
    for line in shown[:-1].split("\n"):
        assert line.isprintable()
        assert text.columns(line) <= width or line in pasted


@given(st.text(), st.integers(2, 60))
def test_wrapped_lines_fit_and_lose_nothing(words: str, width: int) -> None:
    words = text.printable(words)
    lines = text.wrap(words, width)
    assert all(text.columns(line) <= width for line in lines)
    assert "".join("".join(lines).split(" ")) == "".join(words.split(" "))


def test_foreign_text_keeps_what_can_be_printed() -> None:
    assert text.printable("a\tb \x1b[31mred\x1b[0m \x1b]0;title\x07\x1b7 \u202e \udcff é 日本") == (
        r"a b red \x1b7 \u202e \udcff é 日本"
    )
    assert text.columns("é 日本 e\u0301") == 8
    assert text.shorten("日本語日本語", 8) == "日本..."
    assert text.shorten("short", 8) == "short"
    assert TERM.title == text.printable(TERM.title)
