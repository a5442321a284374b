"""What Prometheus sees of an actor."""

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

PHASES = ("waiting", "sampling", "rollouts", "adaptation")
BUCKETS_S = tuple(1e-4 * 2.5**power for power in range(16))  # 100 us to 93 s


class ActorMetrics(Collector):
    """`registry` is what to serve."""

    def __init__(self, wire_bytes: Callable[[], Mapping[str, int]]) -> None:
        """`wire_bytes`: sent and received since the start; asked at every scrape."""
        self._wire_bytes = wire_bytes
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.leases = Counter("clew_actor_leases", "Leases worked on.", registry=registry)
        self.mazes = Counter("clew_actor_mazes", "Mazes drawn.", registry=registry)
        self.attempts = Counter("clew_actor_attempts", "Attempts (episodes).", registry=registry)
        self.steps = Counter("clew_actor_steps", "Steps of all attempts.", registry=registry)
        self.reconnects = Counter("clew_actor_reconnects", "Connections after the first.", registry=registry)
        self.version = Gauge("clew_actor_theta_version", "Of the newest theta, in updates.", registry=registry)
        self.phase_s = Histogram(
            "clew_actor_phase_seconds",
            "Time of each piece of work.",
            ["phase"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        for phase in PHASES:
            self.phase_s.labels(phase)  # zero must be seen, too
        registry.register(self)

    def observe(self, phase: str, seconds: float) -> None:
        self.phase_s.labels(phase).observe(seconds)

    def describe(self) -> Iterable[Metric]:
        """Nothing: there is nobody to ask yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily("clew_actor_wire_bytes", "On both links.", labels=["direction"])
        for direction, count in self._wire_bytes().items():
            family.add_metric([direction], count)
        yield family
