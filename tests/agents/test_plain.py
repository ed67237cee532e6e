"""A program on asyncio alone."""

import signal

import pytest

from . import stop_scenarios
from .conftest import PROGRAMS, Start
from .stop_scenarios import StopScenario

PROGRAM = ("python", str(PROGRAMS / "plain.py"))
ALL_OF_IT = ("work done", "generator closed", "cleaned up", "ended")


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_handler_for_term(start: Start, scenario: StopScenario) -> None:
    agent = start("plain", scenario.wrap((*PROGRAM, "handler")))
    agent.wait("work begun")
    scenario.stop(agent)
    agent.must_end(0)
    agent.must_say(*ALL_OF_IT)


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_asyncio_run_alone(start: Start, scenario: StopScenario) -> None:
    """`asyncio.run` stops on INT only, so INT is what it is given. A second one would break off the clean-up."""
    agent = start("plain", scenario.wrap((*PROGRAM, "bare")), options=["--stop-signal", "INT"])
    agent.wait("work begun")
    scenario.stop(agent)
    agent.must_end(0)
    agent.must_say(*ALL_OF_IT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT], ids=lambda n: n.name)
def test_stopped_while_starting(start: Start, number: signal.Signals) -> None:
    """An interpreter that has not come to its handler yet dies of the stop signal, and the code says so."""
    agent = start("plain", (*PROGRAM, "handler"))
    agent.wait_started()
    agent.signal(number)
    agent.must_end(128 + signal.SIGTERM)


def test_agent_that_blocks_the_signal(start: Start) -> None:
    """A blocked signal is waited for, or kept until a handler is there (Dramatiq, while its workers boot). It is the
    agent's, even if a child of the agent handles it."""
    agent = start("plain", ("python", str(PROGRAMS / "waiting.py")))
    agent.wait("child ready")
    agent.signal(signal.SIGTERM)
    agent.must_end(0)
    agent.must_say("agent stopped", "child done")
