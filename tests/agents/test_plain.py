"""A program on asyncio alone."""

import signal

import pytest

from . import stop_scenarios
from .conftest import PROGRAMS, Start
from .stop_scenarios import StopScenario

PROGRAM = ("python", str(PROGRAMS / "plain.py"))
ALL_STEPS = ("work done", "generator closed", "cleaned up", "ended")


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_asyncio_program_with_a_term_handler(start: Start, scenario: StopScenario) -> None:
    agent = start("plain", scenario.wrap((*PROGRAM, "handler")))
    agent.wait_for_event("work begun")
    scenario.stop(agent)
    agent.must_exit(0)
    agent.must_log_once(*ALL_STEPS)


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_asyncio_run_without_a_handler(start: Start, scenario: StopScenario) -> None:
    """`asyncio.run` stops on INT only, so agent-init sends INT. A second INT would abort the clean-up."""
    agent = start("plain", scenario.wrap((*PROGRAM, "bare")))
    agent.wait_for_event("work begun")
    scenario.stop(agent)
    agent.must_exit(0)
    agent.must_log_once(*ALL_STEPS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT], ids=lambda n: n.name)
def test_stop_before_the_handler_is_installed(start: Start, number: signal.Signals) -> None:
    agent = start("plain", (*PROGRAM, "late"))
    agent.wait_for_start()
    agent.signal(number)
    agent.must_end_at_once()


def test_agent_that_blocks_term_and_waits_for_it(start: Start) -> None:
    """A blocked signal goes to the agent, even if a child of the agent handles it.

    The agent either waits for the signal or unblocks it later (Dramatiq, while its workers boot).
    """
    agent = start("plain", ("python", str(PROGRAMS / "sigwait.py")))
    agent.wait_for_event("child ready")
    agent.signal(signal.SIGTERM)
    agent.must_exit(0)
    agent.must_log_once("agent stopped", "child done")
