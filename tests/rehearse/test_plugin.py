"""The pytest plug-in: what a test gets from it, and that it disturbs nobody who does not use it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import agent_init_pytest
from entrypoint.rehearse import plugin
from entrypoint.rehearse.model import Verdict
from tests.rehearse import agents
from tests.rehearse.conftest import MARK, marked
from tests.support.init import until
from tests.support.rehearsals import EXAMPLE, KILLED, SHORT, run

if TYPE_CHECKING:
    from entrypoint.rehearse.model import Run

pytest_plugins = ["pytester"]

GOOD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("up", flush=True)
time.sleep(100)
"""


@pytest.fixture(autouse=True)
def _no_inherited_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("AGENT_INIT_", "PYTEST_XDIST", "CI")):
            monkeypatch.delenv(name)


def rehearsed(*runs: Run) -> plugin.Rehearsed:
    return plugin.Rehearsed(dataclasses.replace(EXAMPLE, runs=runs))


# --- What a test gets. ------------------------------------------------------------------------------------------------


def test_an_agent_that_ends_in_time_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(agent=GOOD)
    pytester.makepyfile("""
        import sys

        def test_stop(rehearsal):
            done = rehearsal([sys.executable, "agent.py"], up="up", scenarios=["term"], runs=2)
            assert done.kept_all_work
            assert done.held
            assert done.ended_by_itself
            assert done.longest_drain < 20
            assert [run.number for run in done.runs] == [1, 2]
            assert any("terminationGracePeriodSeconds" in advice.line for advice in done.advice)
            assert (done.runs[0].folder / "output.log").exists()
    """)
    result = pytester.runpytest_subprocess("-n0", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_an_agent_that_is_killed_fails_and_the_report_has_the_table(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(agent=agents.DEAF)
    pytester.makepyfile(f"""
        def test_stop(rehearsal):
            assert rehearsal("{sys.executable} agent.py", up="up", scenarios="term", grace=0.5).kept_all_work
    """)
    result = pytester.runpytest_subprocess("-n0", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            r"E +AssertionError: assert False",
            r"E +\+  where False = <rehearsal of .* agent.py: Lost: the scenario that counts did not hold \(TERM\).*",
            r"-+ Captured rehearsal call -+",
            r"scenario .* verdict",
            r"TERM +killed .* LOST",
            r"  - killed at the deadline, .*",
        ]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"command": ""}, "no command; accepted: a line such as 'python agent.py', or its words"),
        ({"when": 1}, "'when' is not an option; accepted: up, work, break_, mend, scenarios, runs, "),
        ({"up": 5}, "up=5: accepted: a command line"),
        ({"grace": "soon"}, "grace='soon': 'soon' is not a duration; accepted: "),
        ({"grace": float("inf")}, "grace=inf: accepted: a finite time above 0, in seconds or such as 25s"),
        ({"grace": []}, "grace=[]: "),
        ({"scenarios": "terms"}, "scenarios='terms': 'terms' is not a scenario; accepted: term, int, "),
        ({"scenarios": 5}, "scenarios=5: "),
        ({"runs": 0}, "runs=0: accepted: a number from 1 to 1000"),
        ({"parallel": 1001}, "parallel=1001: accepted: a number from 1 to 1000"),
        ({"seed": "x"}, "seed='x': accepted: a number from 0"),
        ({"keep": 5}, "keep=5: "),
    ],
)
def test_what_is_not_accepted_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        plugin.rehearse(**{"command": "true", **options})


def test_what_cannot_be_done_is_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_option(rehearsal):
            rehearsal("true", runs=0)

        def test_command(rehearsal):
            rehearsal("/nothing/there")
    """)
    result = pytester.runpytest_subprocess("-n0", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=2)
    for name, message in (("test_option", "runs=0: accepted: "), ("test_command", "cannot run '/nothing/there': ")):
        (heading,) = (place for place, line in enumerate(result.outlines) if line.strip("_ ") == name)
        assert result.outlines[heading + 1].startswith(f"rehearsal: {message}")
        assert result.outlines[heading + 2][:1] in ("_", "=")


def test_a_fixture_of_its_own_may_have_a_scope(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(agent=GOOD)
    pytester.makepyfile("""
        import sys

        import pytest
        from agent_init_pytest import rehearse

        @pytest.fixture(scope="module")
        def done():
            return rehearse([sys.executable, "agent.py"], up="up", scenarios="term", seed=1)

        def test_one(done):
            assert done.held

        def test_two(done):
            assert done.result.seed == 1
    """)
    pytester.runpytest_subprocess("-n0", "-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_the_outcome_of_a_rehearsal() -> None:
    good, informational = run(), run(SHORT, verdict=Verdict.INFORMATIONAL, killed=True, work_kept=False, drain=99.0)
    done = rehearsed(good, informational)
    assert (done.held, done.kept_all_work, done.ended_by_itself, done.longest_drain) == (True, True, True, 1.25)
    lost = rehearsed(good, KILLED)
    assert (lost.held, lost.kept_all_work, lost.ended_by_itself, round(lost.longest_drain, 2)) == (*[False] * 3, 60.02)
    late = rehearsed(run(verdict=Verdict.LOST, reasons=("a traceback",)))
    assert (late.held, late.kept_all_work, late.ended_by_itself) == (False, True, True)
    assert len(lost.runs) == 2
    assert len(lost.advice) == 3


def test_work_that_had_ended_before_each_request_was_not_kept() -> None:
    done = rehearsed(run(work_kept=None))
    assert (done.held, done.kept_all_work) == (True, done.result.work is None)
    assert not plugin.Rehearsed(dataclasses.replace(done.result, work="true")).kept_all_work


def test_where_nothing_was_judged_nothing_is_asserted() -> None:
    for done in (rehearsed(), rehearsed(run(drain=None, verdict=Verdict.SKIPPED), run(SHORT))):
        assert (done.held, done.kept_all_work, done.ended_by_itself) == (False, False, False)
        assert done.longest_drain == math.inf


def test_it_is_short_in_a_message_and_whole_as_text() -> None:
    done = plugin.Rehearsed(dataclasses.replace(EXAMPLE, command=("python", "x" * 500 + "\x1b[2J"), runs=(KILLED,) * 9))
    assert repr(done).startswith("<rehearsal of python 'xxx")
    assert repr(done).endswith(">")
    assert repr(done).isprintable()
    assert len(repr(done)) <= plugin.REPR
    assert "terminationGracePeriodSeconds: 75\n" in str(done)


# --- Those who do not use it. -----------------------------------------------------------------------------------------


def loaded(pytester: pytest.Pytester) -> dict[str, Any]:
    """Run `python -m pytest` on a test that lists the loaded modules."""
    pytester.makepyfile(
        test_list="""
        import json, sys

        def test_list(pytestconfig):
            ours = ("_agent_init", "agent_init", "entrypoint", "click")
            names = [name for name in sys.modules if name.startswith(ours)]
            plugin = pytestconfig.pluginmanager.get_plugin("agent-init")
            with open("loaded.json", "w") as file:
                json.dump({"names": names, "plugin": plugin is not None}, file)
    """
    )
    result = pytester.run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n0", "test_list.py")
    result.assert_outcomes(passed=1)
    found: dict[str, Any] = json.loads((pytester.path / "loaded.json").read_text())
    return found


def test_it_loads_one_small_module(pytester: pytest.Pytester) -> None:
    assert loaded(pytester) == {"names": ["agent_init_pytest"], "plugin": True}


def test_the_entrypoint_of_an_agent_stays_its_own(pytester: pytest.Pytester) -> None:
    """`entrypoint.py` is what many an agent is called. Neither pytest nor the fixture takes the name from it."""
    main = "".join(f"    {line}\n" for line in GOOD.split("\n") if line)
    pytester.makepyfile(entrypoint=f"ANSWER = 42\nif __name__ == '__main__':\n{main}")
    pytester.makepyfile("""
        import sys

        def test_stop(rehearsal):
            assert rehearsal([sys.executable, "entrypoint.py"], up="up", scenarios="term").held
            import entrypoint
            assert entrypoint.ANSWER == 42

        def test_again(rehearsal):
            import entrypoint
            assert entrypoint.ANSWER == 42
            assert rehearsal([sys.executable, "entrypoint.py"], up="up", scenarios="term").held
    """)
    result = pytester.run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n0")
    result.assert_outcomes(passed=2)


def test_a_fixture_of_that_name_is_not_replaced(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def rehearsal():
            return 5

        def test_it(rehearsal):
            assert rehearsal == 5
    """)
    pytester.runpytest_subprocess("-n0", "-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_it_can_be_turned_off(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(rehearsal): pass")
    result = pytester.runpytest_subprocess("-n0", "-p", "no:cacheprovider", "-p", "no:agent-init")
    result.assert_outcomes(errors=1)


def test_a_package_that_is_not_there_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, agent_init_pytest.ALIAS, raising=False)
    monkeypatch.setattr(agent_init_pytest, "__file__", str(tmp_path_factory.mktemp("empty") / "agent_init_pytest.py"))
    with pytest.raises(RuntimeError, match=r"agent-init is not beside .*: install it again"):
        agent_init_pytest.rehearse("true")


def test_ctrl_c_leaves_nothing_running(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    started = pytester.path / "started"
    monkeypatch.setenv(MARK, str(started))
    pytester.makepyfile(agent=f"open({str(started)!r}, 'w')\n{GOOD}")
    pytester.makepyfile("""
        import sys

        def test_stop(rehearsal):
            rehearsal([sys.executable, "agent.py"], up="never printed")
    """)
    process = pytester.popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n0"], stdin=subprocess.DEVNULL
    )
    try:
        until(started.exists, "the start of the agent", 60)
        assert any("agent.py" in line for _, line in marked(str(started)))
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert b"KeyboardInterrupt" in output
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert marked(str(started)) == []
