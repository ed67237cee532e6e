"""The metrics, in the formats of Prometheus and OpenMetrics. docs/http.md lists them."""

from __future__ import annotations

import time
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    StateSetMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .state import STATES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from .loops import Loops
    from .measures import Measures
    from .state import Source, State

FRESH = 1.0  # seconds that an exposition serves, unless the state changes: the figures change no faster
PREFIX = "agent_init_"
# A counter that begins with 1 has not increased, for Prometheus: these are there from the start.
FROM_ZERO = dict.fromkeys(("HUP", "INT", "QUIT", "TERM", "USR1", "USR2"), 0)
MAX_RENDERED = 8  # expositions that are kept: there is one for each format


class AgentInit(Collector):
    """Makes the metrics of the newest state."""

    def __init__(self, source: Source, measures: Measures, loops: Loops) -> None:
        self._source, self._measures, self._loops = source, measures, loops

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families."""
        state = self._source.state
        yield InfoMetricFamily(f"{PREFIX}build", "The version of agent-init.", value={"version": state.version})
        yield StateSetMetricFamily(
            f"{PREFIX}state",
            "The state of the agent and of its stop.",
            value={name: name == state.name for name in STATES},
        )
        yield from _gauges(state)
        yield from self._of_tree(state)
        yield from self._of_loops()
        signals = CounterMetricFamily(
            f"{PREFIX}signals", "Signals that process 1 got, by what it did with them.", labels=("signal", "fate")
        )
        for fate, counts in state.signals.items():
            for name, count in {**FROM_ZERO, **counts}.items():
                signals.add_metric((name, fate), count)
        yield signals
        yield CounterMetricFamily(f"{PREFIX}orphans_reaped", "Orphans that process 1 has reaped.", state.reaped)
        yield CounterMetricFamily(
            f"{PREFIX}control_clients_refused", "Clients of agent-initctl refused.", state.refused
        )

    def _of_tree(self, state: State) -> Iterator[Metric]:
        tree, memory = self._measures.tree, self._measures.memory
        yield from _known(
            (GaugeMetricFamily, "processes", "Processes below agent-init.", tree.processes),
            (CounterMetricFamily, "cpu_seconds", "Processor time of agent-init and all below it.", tree.cpu_seconds),
            (
                GaugeMetricFamily,
                "resident_memory_bytes",
                "Sum of the resident memory of agent-init and all below it; shared pages count several times.",
                tree.resident_bytes,
            ),
            (GaugeMetricFamily, "memory_usage_bytes", "Memory of the control group.", memory.used),
            (GaugeMetricFamily, "memory_peak_bytes", "Most memory that the control group has used.", memory.peak),
            (GaugeMetricFamily, "memory_limit_bytes", "Memory limit of the control group.", memory.limit),
            (
                CounterMetricFamily,
                "oom_kills",
                "Processes of the control group that the kernel's OOM killer has ended.",
                memory.oom_kills(state),
            ),
        )

    def _of_loops(self) -> Iterator[Metric]:
        loops, lags = self._loops, self._loops.lags
        if loops.can_answer:
            text = "Python processes that should answer, and have not: hung, stopped, or without processor time."
            yield GaugeMetricFamily(f"{PREFIX}silent_processes", text, loops.silent)
        if lags is None:
            return
        bounds = (*map(repr, lags.bounds), "+Inf")
        yield HistogramMetricFamily(
            f"{PREFIX}event_loop_lag_seconds",
            "How late the agent's event loops turned, at each look.",
            buckets=list(zip(bounds, accumulate(lags.counts), strict=True)),
            sum_value=lags.sum,
        )
        yield from _known(
            (CounterMetricFamily, "event_loop_blocks", "Times that a loop was blocked (--loop-watch).", lags.blocked),
            (
                GaugeMetricFamily,
                "event_loop_blocked_seconds",
                "For how long a loop is blocked now, the longest of all; 0 if none is.",
                loops.blocked_seconds,
            ),
        )


def _gauges(state: State) -> Iterator[Metric]:
    now = time.monotonic()
    to_epoch = time.time() - now
    left = None if state.kill is None else max(0.0, state.kill - now)
    age = None if state.last_ping is None else max(0.0, now - state.last_ping)
    requested = None if state.requested is None else round(state.requested + to_epoch, 3)
    yield from _known(
        (GaugeMetricFamily, "start_time_seconds", "When the agent was started.", round(state.started + to_epoch, 3)),
        (
            GaugeMetricFamily,
            "hung",
            "Whether a hang was detected (--watchdog, --ready-timeout).",
            int(bool(state.hung)),
        ),
        (GaugeMetricFamily, "stop_requested_time_seconds", "When a stop was requested.", requested),
        (GaugeMetricFamily, "stop_remaining_seconds", "Time left until the SIGKILL of this stop.", left),
        (GaugeMetricFamily, "watchdog_timeout_seconds", "How long the agent may be silent.", state.watchdog),
        (GaugeMetricFamily, "watchdog_age_seconds", "Time since the agent's last sign of life.", age),
    )


def _known(
    *rows: tuple[type[GaugeMetricFamily | CounterMetricFamily], str, str, float | None],
) -> Iterator[Metric]:
    """Yield a family for each row whose value is known."""
    for family, name, text, value in rows:
        if value is not None:
            yield family(PREFIX + name, text, value)


class Expositions:
    """The metrics as text, made anew when they are older than FRESH or the state has changed."""

    def __init__(self, source: Source, measures: Measures, loops: Loops) -> None:
        self._source, self._loops = source, loops
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(AgentInit(source, measures, loops))
        self._made: dict[str, tuple[float, int, bytes]] = {}  # by content type: when, of which version, the text

    def get(self, accept: str) -> tuple[str, bytes]:
        """Return the content type and the text, for an Accept header."""
        try:
            encode, content_type = choose_encoder(accept)
        except Exception:  # as for `version=x`
            encode, content_type = choose_encoder("")
        now = time.monotonic()
        made_at, version, text = self._made.get(content_type, (0.0, 0, b""))
        newest = self._source.version + self._loops.version
        if version != newest or now >= made_at + FRESH:
            text = encode(self._registry)
            if len(self._made) >= MAX_RENDERED:
                self._made.clear()
            self._made[content_type] = now, newest, text
        return content_type, text
