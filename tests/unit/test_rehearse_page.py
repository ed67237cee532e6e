"""The HTML page: well-formed, closed to hostile text, readable without a script; and where a timeline puts things."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings

from entrypoint.rehearse import page, timeline
from entrypoint.rehearse.model import Advice, Event, Life, Rehearsal, Run, Verdict
from entrypoint.rehearse.timeline import Span
from tests.support.rehearsals import EXAMPLE, KILLED, SHORT, TERM, rehearsals, run

EMPTY = {"meta", "link"}
TAGS = EMPTY | set(
    """html head title style body header main footer section article h1 h2 h3 p dl dt dd ul ol li span i a code pre div
    table thead tbody tr th td details summary svg desc g line rect text circle""".split()
)
FOREIGN = ("meta", "link", "style", "a")  # may have these attributes, in the template only
ADDRESSES = ("href", "src", "srcset", "action", "data", "style", "background", "poster", "xlink:href")


class Checked(HTMLParser):
    """Checks each element, and keeps what tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.classes: list[tuple[str, str, dict[str, str]]] = []
        self.text = ""
        self.places: list[float] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        found = {name: value or "" for name, value in attributes}
        for name in found:
            assert not name.startswith("on")
            assert name not in ADDRESSES or (tag in FOREIGN and found[name].startswith(("#", "data:,")))
        if "id" in found:
            self.ids.append(found["id"])
        self.places += [float(value[:-1]) for name, value in found.items() if name in PLACES and value[-1:] == "%"]
        self.classes.append((tag, found.get("class", ""), found))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str, kind: str) -> int:
        """How many elements have this tag and class."""
        return sum(found == tag and kind in classes.split() for found, classes, _ in self.classes)


PLACES = ("x", "x1", "x2", "cx", "width")


@settings(max_examples=30)
@given(rehearsals())
def test_no_text_gets_out_of_its_place(rehearsal: Rehearsal) -> None:
    html = page.render(rehearsal)
    assert "<script" not in html.lower()
    assert html.encode()  # no lone surrogate
    checked = Checked(html)
    assert len(set(checked.ids)) == len(checked.ids)
    assert all(0 <= place <= 100 for place in checked.places)
    assert all(found["href"][1:] in checked.ids for tag, _, found in checked.classes if tag == "a")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)


def test_the_policy_forbids_every_request_and_script() -> None:
    html = page.render(EXAMPLE)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "$" not in html


def test_it_has_the_result_the_table_and_what_to_write() -> None:
    html = page.render(EXAMPLE)
    shown = Checked(html).text
    assert "Lost: 1 of 3 scenarios that count did not hold (TERM twice, 1 s apart); the longest drain was 1.2" in shown
    assert "python agent.py --room 'a b'" in shown
    assert "A test call is shorter than a real one" in shown
    assert '<pre class="paste" tabindex="0"><code>terminationGracePeriodSeconds: 75</code></pre>' in html
    assert "agent-init 1.0, python 3.11.7" in shown
    assert html.count('role="rowheader"') == 5 + sum(len(one.lives) for one in EXAMPLE.runs)


@pytest.mark.parametrize(
    ("runs", "kind"),
    [((KILLED,), "lost"), ((run(),), "held"), ((run(SHORT, verdict=Verdict.LOST),), "none"), ((), "none")],
)
def test_the_banner_has_the_colour_of_the_result(runs: tuple[Run, ...], kind: str) -> None:
    html = page.render(dataclasses.replace(EXAMPLE, runs=runs, advice=(), notes=(), work=None))
    assert f'<p class="result {kind}">' in html
    assert "none: the ending alone was judged" in html


def test_of_many_runs_the_lost_ones_are_shown() -> None:
    runs = [run(number=number) for number in range(1, 40)]
    runs[6:6] = [dataclasses.replace(KILLED, scenario=TERM, number=number) for number in range(40, 45)]
    html = page.render(dataclasses.replace(EXAMPLE, runs=tuple(runs)))
    before, _, closed = html.partition("<details><summary>41 other runs</summary>")
    assert [int(number) for number in re.findall(r"<summary>Run (\d+):", before)] == [40, 41, 42]
    assert before.count("<details open>") == 1
    assert len(re.findall(r"<summary>Run (\d+):", closed)) == 41


def test_held_runs_of_a_crowd_are_closed_and_long_lists_too() -> None:
    events = tuple(Event(2.0 + number, "signal", "TERM", 2) for number in range(20))
    html = page.render(
        dataclasses.replace(EXAMPLE, runs=tuple(run(number=number, events=events) for number in range(9)))
    )
    assert "<details><summary>9 runs</summary>" in html
    assert html.count("<details><summary>Events: 20</summary>") == 9


def test_if_nothing_was_lost_one_run_is_open_as_an_example() -> None:
    html = page.render(dataclasses.replace(EXAMPLE, runs=(run(), run(SHORT, verdict=Verdict.INFORMATIONAL))))
    assert html.count("<details open><summary>Run 1: ended by itself after 1.25s, exit code 0, work kept") == 1


def test_each_process_and_event_is_in_the_timeline_and_in_a_list() -> None:
    html = page.render(dataclasses.replace(EXAMPLE, runs=(KILLED,)))
    checked = Checked(html)
    assert [checked.count("rect", kind) for kind in ("agent", "other", "left")] == [1, 1, 1]
    assert checked.count("line", "broken") == 2
    assert checked.count("line", "request") == 1
    events = re.findall(r'<span class="t">(.*?)</span><span class="what">(.*?)</span>', html)
    assert events[:4] == [
        ("\N{MINUS SIGN}0.5 s", "up: READY=1"),
        ("0 s", "request: TERM to process 1"),
        ("0 s", "signal: TERM to python agent.py (pid 2)"),
        ("+0.4 s", "log: RuntimeError: no running event loop"),
    ]
    assert "3 processes were seen, 1 left over. The agent ended 1m after the request." in html
    assert "<title>chromium, pid 4, child of 2: from \N{MINUS SIGN}0.8 s</title>" in html


def test_a_crowd_of_processes_is_cut_in_the_timeline_and_whole_in_the_list() -> None:
    lives = tuple(Life(number, 1, f"worker {number}", 1.0, 2.5) for number in range(2, 102))
    html = page.render(dataclasses.replace(EXAMPLE, runs=(run(lives=lives),)))
    assert Checked(html).count("rect", "bar") == timeline.MAX_LIVES
    assert ">and 40 more</text>" in html
    assert html.count('<th role="rowheader" scope="row">worker ') == 100


def test_what_ended_before_the_timeline_is_in_the_list_alone() -> None:
    early = Life(9, 2, "git", 0.1, 0.2)
    html = page.render(dataclasses.replace(EXAMPLE, runs=(run(drain=0.5, lives=(Life(2, 1, "agent", 0, 2.5), early)),)))
    assert Checked(html).count("rect", "bar") == 1
    assert '<th role="rowheader" scope="row">git</th>' in html


# --- The timeline. ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "span"),
    [
        (run(drain=10.0), Span(-2.0, 10.0)),  # the start and the drain
        (run(drain=0.2), Span(-0.1, 0.2)),  # a long start is cut off, the deadline of 60 s too
        (run(drain=40.0), Span(-2.0, 60.0)),  # the deadline fits
        (run(drain=None, request_at=None), Span(0.0, 0.001)),  # nothing was seen
        (run(drain=5.0, request_at=None), Span(0.0, 7.0)),
        (run(drain=0.0, events=(), lives=()), Span(-2.0, 0.0)),
    ],
)
def test_a_timeline_shows_the_drain(seen: Run, span: Span) -> None:
    found = timeline.span(seen)
    assert (round(found.first, 6), round(found.last, 6)) == (span.first, span.last)


@pytest.mark.parametrize(
    ("span", "ticks"),
    [
        (Span(-2.0, 10.0), [-2, 0, 2, 4, 6, 8, 10]),
        (Span(-0.1, 0.2), [-0.1, -0.05, 0, 0.05, 0.1, 0.15, 0.2]),
        (Span(-2.0, 60.0), [0, 10, 20, 30, 40, 50, 60]),
        (Span(0.0, 86400.0), [0, 20000, 40000, 60000, 80000]),
    ],
)
def test_ticks_are_round_and_few(span: Span, ticks: list[float]) -> None:
    assert [round(tick, 9) for tick in timeline.ticks(span)] == ticks


def test_a_place_is_within_the_width() -> None:
    assert [Span(-2, 8).place(at) for at in (-5, -2, 0, 8, 60)] == [0, 0, 20, 100, 100]
    assert Span(1, 1).place(1) == 0
    assert not Span(-2, 8).shows(60)


def test_seconds_have_a_sign_where_they_need_one() -> None:
    times = [timeline.seconds_text(seconds, signed=True) for seconds in (-0.5, 0.0, 0.25, 60.02)]
    assert times == ["\N{MINUS SIGN}0.5 s", "0 s", "+0.25 s", "+60.02 s"]
    assert timeline.seconds_text(5.0) == "5 s"


def test_numbers_near_each_other_share_a_label() -> None:
    events = tuple(Event(2.0 + at, "signal", "TERM") for at in (0.0, 0.1, 5.0, 10.0))
    svg = timeline.render(run(drain=10.0, events=events), "x")
    assert re.findall(r'text-anchor="middle" transform="[^"]*">(.*?)</text>', svg) == ["1\N{EN DASH}2", "3", "4"]


def test_what_is_far_beyond_is_at_the_edge() -> None:
    svg = timeline.render(run(drain=1.0), "x")
    assert 'class="number grave"' in svg  # the deadline and the end share a label
    svg = timeline.render(run(drain=1.0, events=(Event(62.0, "deadline", "KILL"),)), "x")
    assert 'class="number grave beyond"' in svg
    assert 'class="mark deadline"' not in svg


def test_a_rehearsal_without_anything_is_a_page() -> None:
    nothing = Rehearsal((), None, "", 0, (), (Advice("Compose", "a: 1\nb: 2", ""),))
    assert "<code>a: 1\nb: 2</code>" in page.render(nothing)
    assert "Nothing was judged" in page.render(nothing)


# --- The colours. -----------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """The relative luminance of `#rrggbb` (WCAG 2.2)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_text_has_contrast(theme: int) -> None:
    """4.5:1 for text (WCAG 2.2, 1.4.3)."""
    style = re.findall(r"<style>(.*?)</style>", page.render(EXAMPLE), re.DOTALL)[0]
    colours = dict(re.findall(r"--(\w+): (#\w{6});", re.findall(r":root \{(.*?)\}", style, re.DOTALL)[theme]))
    pairs = [(text, ground) for text in ("text", "faint", "good", "bad", "info", "warn") for ground in ("page", "card")]
    pairs += [("text", bar) for bar in ("agent", "other", "left")]  # the names on the bars
    for pair in pairs:
        lower, higher = sorted(luminance(colours[name]) for name in pair)
        assert (higher + 0.05) / (lower + 0.05) >= 4.5, pair
