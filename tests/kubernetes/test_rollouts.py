"""Rolling updates under load: no call is cut off, no request fails. `rollouts.py` makes more of them, beside tini."""

from __future__ import annotations

import pytest

from tests.support import go_programs

from . import calls, http_requests, rollouts
from .cluster import Cluster
from .http_requests import Delay
from .pods import Watch

pytestmark = pytest.mark.usefixtures("together")  # they would share the processors

DELAY = 15  # seconds; kube-proxy takes 1 s to learn of a stop, and longer on a busy machine


@pytest.fixture(scope="module")
def livekit(cluster: Cluster) -> calls.Server:
    try:
        return calls.Server(cluster)
    except go_programs.BuildFailed as failure:
        pytest.fail(str(failure), pytrace=False)


@pytest.fixture(scope="module")
def _proxy(cluster: Cluster) -> None:
    http_requests.start_proxy(cluster)


def test_no_call_is_lost_in_rollouts_and_a_restart_of_containerd(watch: Watch, livekit: calls.Server) -> None:
    """Two callers talk to LiveKit workers all the time, a third while containerd is restarted during a drain."""
    load = rollouts.under_calls(watch, livekit, "agent-init", rollouts=2, restart=2)
    tally = load.tally()
    assert tally.begun >= 3, load.shown()
    assert (tally.cut, tally.not_saved) == (0, 0), load.shown()


@pytest.mark.usefixtures("_proxy")
@pytest.mark.parametrize(
    "delay",
    [
        pytest.param(http_requests.stop_delay(DELAY), id="delay"),
        pytest.param(http_requests.hook(DELAY), id="hook", marks=pytest.mark.slow),
    ],
)
def test_no_request_fails_in_a_rollout_with_a_delay(watch: Watch, request: pytest.FixtureRequest, delay: Delay) -> None:
    """New requests arrive until the proxy knows that a pod stops; the agent still serves them."""
    result = http_requests.during_rollouts(watch, f"served-with-{request.node.callspec.id}", delay, rollouts=1)
    assert result.made > 30
    assert not result.failed
