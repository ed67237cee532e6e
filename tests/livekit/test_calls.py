"""What becomes of a call when the container is stopped, told by the caller's and the agent's own records.

The worker is that of `examples/livekit`, with an AgentSession that hears and speaks tones (programs/voice_agent.py).
"""

from __future__ import annotations

import time
from pathlib import Path
from signal import SIGINT, SIGTERM

import pytest

from tests.agents import environments
from tests.agents.livekit import CALL_LINES

from . import outcome
from .conftest import StartCall
from .server import Server
from .trial import EXAMPLE, TINI, VOICE, VOICE_AGENT, Caller, Worker

LATEST, FIRST = "livekit", "livekit-1.0.12"
RELEASES = pytest.mark.parametrize("release", [LATEST, FIRST])

BEHIND = {
    "sh": ("sh", "-c", f"python {VOICE_AGENT} start; exit $?"),
    "uv": (environments.uv(), "run", "--quiet", "--offline", "--no-project", "--", *VOICE),
}

ROUND = 2.6  # seconds between two answers


def must_go_on(worker: Worker, caller: Caller, since: float) -> None:
    """The caller talks on after `since`: three answers, so that at least two are to what was said later."""
    worker.until(lambda: caller.answers(since) >= 3 or not worker.running(), "three more answers of the agent")
    assert caller.answers(since) >= 3, f"the call was cut off\n{worker.transcript()}"


def must_be_saved(worker: Worker, caller: Caller, *, left: bool = False) -> None:
    """The worker ends with 0, the caller heard the agent until the end, and the call was saved."""
    assert worker.wait() == 0, worker.transcript()
    ended = outcome.of(caller.records(), worker.records())
    assert (ended.begun, ended.cut, ended.left, ended.saved) == (True, False, left, True), worker.transcript()
    assert len(worker.records("saving")) == 1, worker.transcript()


def must_be_lost(worker: Worker, caller: Caller, code: int) -> None:
    """The worker ends with this code, nothing is saved, and the caller hears nothing until the server gives up."""
    assert worker.wait() == code, worker.transcript()
    caller.wait()
    ended = outcome.of(caller.records(), worker.records())
    assert (ended.begun, ended.cut, ended.left, ended.saved) == (True, True, True, False), worker.transcript()


@RELEASES
def test_caller_who_hangs_up(start_call: StartCall, tmp_path: Path, release: str) -> None:
    """After TERM the worker waits for the caller. It reports when a process is warm for a call, and its calls."""
    probed = tmp_path / "ready"
    worker, caller = start_call(release, AGENT_INIT_VERBOSE="1", READY_FILE=str(probed))
    (begun,) = worker.records("begun")
    # A job ignores INT. It would ignore TERM too, but in later releases the fork server has imported that code before.
    assert worker.ignores(begun["process"], SIGINT)
    assert worker.ignores(begun["process"], SIGTERM) == (release == FIRST)
    must_go_on(worker, caller, worker.signal(SIGTERM))
    caller.hang_up()
    must_be_saved(worker, caller)
    assert len(worker.logged("ready")) == 1, worker.transcript()
    assert probed.exists(), worker.transcript()
    if release == LATEST:  # in 1.0 it is the job's process that logs this
        assert worker.output().index("process initialized") < worker.output().index('"event": "ready"')
    assert [line["status"] for line in worker.logged("status")][:2] == ["0 calls", "1 call"], worker.transcript()


@RELEASES
def test_example_as_printed(start_call: StartCall, release: str) -> None:
    """`examples/livekit/agent.py` itself, whose call has no voice."""
    worker, caller = start_call(release, ("python", str(EXAMPLE / "agent.py"), "start"), answers=0)
    worker.until(lambda: "call answered" in worker.output(), "the call")
    worker.signal(SIGTERM)
    worker.until(lambda: "draining worker" in worker.output(), "the drain")
    caller.hang_up()
    assert worker.wait() == 0, worker.transcript()
    assert [worker.output().count(line) for line in CALL_LINES] == [1, 1, 1], worker.transcript()


@RELEASES
@pytest.mark.parametrize("wrapper", BEHIND)
def test_caller_who_hangs_up_behind_a_wrapper(start_call: StartCall, release: str, wrapper: str) -> None:
    worker, caller = start_call(release, BEHIND[wrapper])
    must_go_on(worker, caller, worker.signal(SIGTERM))
    caller.hang_up()
    must_be_saved(worker, caller)


@RELEASES
def test_second_term_changes_nothing(start_call: StartCall, release: str) -> None:
    """containerd sends one if it is restarted during the drain."""
    worker, caller = start_call(release)
    must_go_on(worker, caller, worker.signal(SIGTERM))
    must_go_on(worker, caller, worker.signal(SIGTERM))
    caller.hang_up()
    must_be_saved(worker, caller)


@RELEASES
def test_second_term_loses_the_call_under_tini(start_call: StartCall, release: str) -> None:
    worker, caller = start_call(release, init=TINI)
    must_go_on(worker, caller, worker.signal(SIGTERM))
    worker.signal(SIGTERM)
    must_be_lost(worker, caller, code=1)


@RELEASES
def test_server_that_is_restarted_during_the_drain(start_call: StartCall, server: Server, release: str) -> None:
    """Both sides connect again, and the call goes on."""
    worker, caller = start_call(release)
    worker.signal(SIGTERM)
    worker.until(lambda: "draining worker" in worker.output(), "the drain")
    server.kill()
    server.start()
    worker.until(lambda: caller.records("reconnected"), "the caller's new connection")
    must_go_on(worker, caller, time.time())
    caller.hang_up()
    must_be_saved(worker, caller)


def test_caller_who_stays_is_left_by_the_agent(start_call: StartCall) -> None:
    """The drain timeout comes from the grace. The agent leaves and saves, and nothing is killed."""
    worker, caller = start_call(LATEST, AGENT_INIT_GRACE="38s")
    since = worker.signal(SIGTERM)
    caller.wait()
    must_be_saved(worker, caller, left=True)
    assert caller.answers(since) >= 1, worker.transcript()
    assert not worker.logged("deadline"), worker.transcript()


def test_call_extends_the_deadline(start_call: StartCall) -> None:
    """As long as there is a call, and at most to the drain timeout; a worker that hangs has the grace alone."""
    worker, caller = start_call(LATEST, (*VOICE, "--drain-timeout", "3600"), AGENT_INIT_GRACE="8s")
    since = worker.signal(SIGTERM)
    must_go_on(worker, caller, since + 8.0)
    caller.hang_up()
    must_be_saved(worker, caller)
    assert worker.logged("extended"), worker.transcript()


@RELEASES
def test_caller_who_stays_hears_nothing_once_the_worker_is_killed(start_call: StartCall, release: str) -> None:
    """The drain timeout of 1.8, which is longer than the grace."""
    command = (*VOICE, "--drain-timeout", "3600")
    worker, caller = start_call(release, command, AGENT_INIT_GRACE="8s", AGENT_INIT_MAX_GRACE="8s")
    worker.signal(SIGTERM)
    must_be_lost(worker, caller, code=137)


def test_dev_does_not_drain(start_call: StartCall) -> None:
    worker, caller = start_call(LATEST, ("python", str(VOICE_AGENT), "dev"))
    since = worker.signal(SIGTERM)
    worker.wait()
    caller.wait()
    assert caller.answers(since + ROUND) == 0, worker.transcript()
