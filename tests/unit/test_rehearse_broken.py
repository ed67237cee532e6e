"""Which lines of an agent's output betray a broken end, and which do not."""

from __future__ import annotations

import asyncio
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.rehearse import broken
from entrypoint.rehearse.records import Line

EXAMPLES = {
    "no running event loop": "RuntimeError: no running event loop",
    "Event loop is closed": "RuntimeError: Event loop is closed",
    "Event loop stopped before Future completed": "RuntimeError: Event loop stopped before Future completed.",
    "Task was destroyed but it is pending": "Task was destroyed but it is pending!",
    "Exception in thread": "Exception in thread Thread-1 (work):",
    "cannot schedule new futures after shutdown": "cannot schedule new futures after interpreter shutdown",
    "can't start new thread at interpreter shutdown": "RuntimeError: can't create new thread at interpreter shutdown",
    "was never awaited": "agent.py:3: RuntimeWarning: coroutine 'close' was never awaited",
    "attached to a different loop": "RuntimeError: Task <Task> got Future <Future> attached to a different loop",
    "Fatal Python error": "Fatal Python error: _enter_buffered_busy: could not acquire lock",
}
BEGINNING = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n'
KEYBOARD_INTERRUPT = """\
Traceback (most recent call last):
  File "/usr/lib/python3.11/asyncio/runners.py", line 118, in run
    return self._loop.run_until_complete(task)
  File "agent.py", line 6, in main
    await asyncio.sleep(1000)
asyncio.exceptions.CancelledError

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "agent.py", line 11, in <module>
    asyncio.run(main())
KeyboardInterrupt
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "agent.py", line 5, in main
  |     async with asyncio.TaskGroup() as group:
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "agent.py", line 3, in call
    |     raise ValueError("no call")
    | ValueError: no call
    +------------------------------------
"""


def lines(text: str, stream: str = "err", at: float = 10.0) -> list[Line]:
    """The lines of a text, as they came at one moment."""
    return [Line(at, stream, line) for line in text.splitlines()]


def found(text: str) -> list[tuple[str, str]]:
    """The lines that were found in a text, each with its rule."""
    return [(line.rule, line.line) for line in broken.find(lines(text), 5.0, 0.0)]


def test_each_rule_has_an_example() -> None:
    assert [rule for rule, _ in broken.RULES] == list(EXAMPLES)


def test_interrupted_start_of_the_interpreter_is_no_broken_end() -> None:
    """INT comes before the agent has run a statement: it can do nothing about that."""
    text = "Fatal Python error: init_import_site: Failed to import the site module\nPython runtime state: initialized\n"
    text += 'Traceback (most recent call last):\n  File "<frozen site>", line 621, in <module>\nKeyboardInterrupt\n'
    assert broken.find(lines(text), 0.0, 0.0) == ()


@pytest.mark.parametrize(("rule", "line"), EXAMPLES.items())
def test_rule_is_recognised_wherever_it_is_in_a_line(rule: str, line: str) -> None:
    assert found(line) == [(rule, line)]
    assert found(f'{{"level": "error", "text": "{line}"}}')[0][0] == rule


@pytest.mark.parametrize("line", EXAMPLES.values())
def test_lines_before_the_request_do_not_count(line: str) -> None:
    assert broken.find(lines(line, at=4.9), 5.0, 0.0) == ()


def test_seconds_count_from_the_start() -> None:
    (line,) = broken.find(lines("Task was destroyed but it is pending!", at=12.0), 5.0, 3.0)
    assert line.seconds == 9.0


def test_interrupted_program_is_exempt() -> None:
    assert found(KEYBOARD_INTERRUPT) == []


def test_real_interrupt_of_asyncio_is_exempt() -> None:
    async def main() -> None:
        try:
            await asyncio.sleep(0)
            raise asyncio.CancelledError
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        assert found(traceback.format_exc()) == []


def test_traceback_that_came_before_the_request_too_has_another_cause() -> None:
    text = BEGINNING + "ConnectionError: broker is away"
    assert broken.find([*lines(text, at=4.0), *lines(text)], 5.0, 0.0) == ()
    assert len(broken.find([*lines(text, at=4.0), *lines(BEGINNING + "ValueError: no call")], 5.0, 0.0)) == 1


def test_traceback_is_named_by_its_last_line() -> None:
    text = f"{BEGINNING}    x = {{}}['a']\n        ~~^^^^^\nKeyError: 'a'\nbye"
    assert found(text) == [("traceback", "KeyError: 'a'")]


def test_chain_is_named_by_the_exception_that_was_raised_last() -> None:
    text = KEYBOARD_INTERRUPT.replace("KeyboardInterrupt", "httpx.ConnectError: no more connections")
    assert found(text) == [("traceback", "httpx.ConnectError: no more connections")]


def test_traceback_that_is_cut_off_counts() -> None:
    text = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>'
    assert found(text) == [("traceback", 'File "a.py", line 1, in <module>')]


def test_exception_group_counts() -> None:
    assert {rule for rule, _ in found(GROUP)} == {"traceback"}
    assert ("traceback", "| ValueError: no call") in found(GROUP)


def test_traceback_that_ends_with_a_rule_is_named_once() -> None:
    text = f"{BEGINNING}    run()\nRuntimeError: no running event loop"
    assert found(text) == [("no running event loop", "RuntimeError: no running event loop")]


def test_traceback_in_a_line_of_json_counts_and_an_interrupt_does_not() -> None:
    line = '{"event": "failed", "exception": "Traceback (most recent call last):\\n  File \\"a.py\\"\\nValueError: x"}'
    assert found(line) == [("traceback", line)]
    assert found(line.replace("ValueError: x", "KeyboardInterrupt")) == []


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (lines(BEGINNING + "ValueError: x\n") + lines("question?", "out", 11.0), "ValueError: x"),
        (lines(BEGINNING + "ValueError: x\n\n", "out"), "ValueError: x"),
        (lines(BEGINNING + "ValueError: x\ngiving up\n"), ""),
        (lines("giving up\n"), ""),
        ([], ""),
    ],
    ids=["stdout after it", "stdout", "not at the end", "no traceback", "nothing"],
)
def test_error_at_the_end_of_the_output(printed: list[Line], expected: str) -> None:
    assert broken.last_error(printed) == expected


def test_streams_do_not_mix() -> None:
    mixed = [
        Line(10.0, "err", "Traceback (most recent call last):"),
        Line(10.0, "out", "draining"),
        Line(10.0, "err", '  File "a.py", line 1, in f'),
        Line(10.0, "out", "KeyboardInterrupt"),
        Line(10.0, "err", "ValueError: x"),
    ]
    assert [line.line for line in broken.find(mixed, 5.0, 0.0)] == ["ValueError: x"]


words = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40)


@given(st.lists(words, max_size=8), st.sampled_from(sorted(EXAMPLES)), words, words)
def test_property_a_line_with_a_rule_is_found_among_any_others(
    others: list[str], rule: str, before: str, after: str
) -> None:
    line = f"{before} {EXAMPLES[rule]} {after}"
    everything = [*(Line(9.0, "out", other) for other in others), Line(9.5, "err", line)]
    assert any(one.line == line.strip() for one in broken.find(everything, 9.0, 0.0))


@given(st.lists(st.sampled_from([*KEYBOARD_INTERRUPT.splitlines(), *GROUP.splitlines(), "", "text", "ValueError: x"])))
def test_property_any_order_of_lines_is_read_and_only_lines_are_named(texts: list[str]) -> None:
    named = broken.find([Line(9.0, "err", text) for text in texts], 9.0, 0.0)
    assert {line.line for line in named} <= {text.strip() for text in texts}


@given(st.lists(words.filter(lambda text: "Traceback" not in text and not broken.rule_of(text))))
def test_property_without_a_rule_or_a_traceback_nothing_is_found(texts: list[str]) -> None:
    assert broken.find([Line(9.0, "out", text) for text in texts], 0.0, 0.0) == ()
