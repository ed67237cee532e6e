"""Rolling updates under load, beside tini: `python -m tests.kubernetes.rollouts`.

It rolls HTTP agents under requests, and LiveKit workers under calls, and writes the tables in docs/kubernetes.md; for
one of them: `python -m tests.kubernetes.rollouts calls`. It takes 20 minutes. `test_rollouts.py` does a share of it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from . import build, calls, cluster, http_requests, image
from .calls import Calls, Tally
from .http_requests import Requests
from .pods import Watch

PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"
SECTION = r"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)"
ROLLOUTS, WITH_RESTART = 10, 5  # during the fifth containerd is restarted
HTTP_ROLLOUTS = 5
DELAYS = (http_requests.NO_DELAY, http_requests.stop_delay(3), http_requests.hook(3))


def under_calls(
    watch: Watch, livekit: calls.Server, init: str, rollouts: int = ROLLOUTS, restart: int = WITH_RESTART
) -> Calls:
    """Roll the workers so often, and return the calls. All are over."""
    with calls.workers_with_calls(watch, livekit, init) as (workers, load):
        for number in range(1, rollouts + 1):
            began = time.monotonic()
            if number == restart:
                calls.roll_and_restart_containerd(workers, load)
            else:
                calls.roll(workers)
            print(f"{init}: rollout {number} of {rollouts}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return load


def rendered_calls(tallies: Mapping[str, Tally]) -> str:
    seen = tallies.values()
    rows = [
        ("calls begun", *(str(tally.begun) for tally in seen)),
        ("cut off", *(str(tally.cut) for tally in seen)),
        ("not saved", *(str(tally.not_saved) for tally in seen)),
        ("callers that found no agent", *(str(tally.unanswered) for tally in seen)),
    ]
    return table(("", *tallies), rows)


def rendered_requests(results: Mapping[str, Requests]) -> str:
    rows = [(text, str(result.made), str(len(result.failed))) for text, result in results.items()]
    return table(("at a stop", "requests", "failed"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    made = f"Kubernetes {build.VERSION}, two cores, {datetime.now(UTC):%Y-%m-%d}."
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{made}\n"


def write(name: str, text: str) -> None:
    """Replace a section of the page."""
    section = re.compile(SECTION.format(name=name), re.DOTALL)
    page = PAGE.read_text()
    assert section.search(page)
    PAGE.write_text(section.sub(lambda found: f"{found[1]}{text}{found[2]}", page))
    print(text)


def requests(watch: Watch) -> bool:
    """Return whether no request failed where there was a delay."""
    http_requests.start_proxy(watch.cluster)
    results = {
        delay.text: http_requests.during_rollouts(watch, f"served-{number}", delay, HTTP_ROLLOUTS)
        for number, delay in enumerate(DELAYS)
    }
    write("requests", rendered_requests(results))
    return not any(results[delay.text].failed for delay in DELAYS if delay != http_requests.NO_DELAY)


def calls_under_each_init(watch: Watch) -> bool:
    """Return whether agent-init lost no call."""
    livekit = calls.Server(watch.cluster)
    loads = {init: under_calls(watch, livekit, init) for init in calls.INITS}
    tallies = {init: load.tally() for init, load in loads.items()}
    write("calls", rendered_calls(tallies))
    ours = tallies["agent-init"]
    if lost := ours.cut or ours.not_saved:
        print(loads["agent-init"].shown())
    return not lost


PARTS = {"requests": requests, "calls": calls_under_each_init}


def main() -> int:
    with cluster.running_cluster() as made:
        made.import_image(image.make(made.root))
        watch = Watch(made)
        right = [PARTS[name](watch) for name in sys.argv[1:] or PARTS]
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
