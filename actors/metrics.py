"""The metrics that an actor serves to Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from protocol.wire.messages import Rollouts

PHASES = ("waiting", "sampling", "rollouts", "adaptation")
BUCKETS_S = tuple(1e-4 * 2.5**power for power in range(16))  # 100 us to 93 s


class ActorMetrics(Collector):
    """The metrics of one actor, which are served from `registry`."""

    def __init__(self, wire_bytes: Callable[[], Mapping[str, int]]) -> None:
        """Starts at zero; `wire_bytes` is asked at every scrape for the bytes sent and received since the start."""
        self._wire_bytes = wire_bytes
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.leases = Counter("clew_actor_leases", "Leases worked on.", registry=registry)
        self.mazes = Counter("clew_actor_mazes", "Mazes drawn.", registry=registry)
        self.attempts = Counter("clew_actor_attempts", "Attempts (episodes) made.", registry=registry)
        self.steps = Counter("clew_actor_steps", "Steps made in all attempts.", registry=registry)
        self.reconnects = Counter("clew_actor_reconnects", "Connections made after the first.", registry=registry)
        self.version = Gauge("clew_actor_theta_version", "Version of the newest theta, in updates.", registry=registry)
        self.phase_s = Histogram(
            "clew_actor_phase_seconds",
            "Time that each piece of work took.",
            ["phase"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        for phase in PHASES:
            self.phase_s.labels(phase)  # a phase without work is served as zero
        registry.register(self)

    def observe(self, phase: str, seconds: float) -> None:
        """Adds the time that one piece of work took."""
        self.phase_s.labels(phase).observe(seconds)

    def count(self, rollouts: Rollouts) -> None:
        """Adds what was done for one lease."""
        self.leases.inc()
        self.mazes.inc(len(rollouts.mazes))
        self.attempts.inc(sum(stage.length.size for stage in rollouts.stages))
        self.steps.inc(sum(len(stage.move) for stage in rollouts.stages))
        for phase, seconds in rollouts.seconds.items():
            self.observe(phase, seconds)

    def describe(self) -> Iterable[Metric]:
        """Returns no metrics, so that nobody is asked for bytes before the first scrape."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yields the bytes on the links."""
        family = CounterMetricFamily("clew_actor_wire_bytes", "Bytes on both links.", labels=["direction"])
        for direction, count in self._wire_bytes().items():
            family.add_metric([direction], count)
        yield family
