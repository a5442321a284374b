"""Metrics of a learner for Prometheus. What the learner counts anyway is read at every scrape, not counted twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from learner.record import Record

PHASES = ("waiting", "decoding", "gradient", "publishing", "checkpoint")
REASONS = (  # for which a message does not count, or a gradient or checkpoint fails; zero must be seen, too
    *("frames", "size", "kind", "fields", "layout", "header", "length", "shape", "maze", "steps", "not_finite"),
    *("stranger", "unknown", "late", "duplicate", "version", "contract", "key", "gradient", "checkpoint"),
    *("forged", "shut_out"),
)
BUCKETS_S = tuple(1e-4 * 2.5**power for power in range(16))  # 100 us to 93 s


@dataclass(frozen=True)
class Live:
    """A learner at this moment; counts are since its start."""

    version: int  # updates of the run that are done
    planned: int  # updates after which the run is over
    actors: int
    leases_out: int
    leases_missing: int  # answers that the next update still waits for
    batches_waiting: int  # whose answers are not complete
    leases: Mapping[str, int]  # issued, reissued, doubled, expired
    refusals: Mapping[str, int]  # by reason
    bytes: Mapping[str, int]  # sent, received
    checkpoint_age_s: float  # NaN before the first
    theta_norm: float
    step_sizes: Mapping[str, float]  # mean of the learned ones: of the cells' fast weights, and by parameter
    record: Record | None  # of the last update
    totals: Mapping[str, int]  # updates, attempts, steps


class LearnerMetrics(Collector):
    """The metrics of a learner, which are served from `registry`."""

    def __init__(self, live: Callable[[], Live]) -> None:
        """Starts at zero; `live` is asked at every scrape."""
        self.registry = CollectorRegistry()
        self._live = live
        self._phase_s = Histogram(
            "clew_learner_phase_seconds",
            "Time of each piece of work; the clerk's decoding goes on beside the other phases.",
            ["phase"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        for phase in PHASES:
            self._phase_s.labels(phase)
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def observe(self, phase: str, seconds: float) -> None:
        """Notes that a piece of work is done. Any thread may call it."""
        self._phase_s.labels(phase).observe(seconds)

    def describe(self) -> Iterable[Metric]:
        """Returns no metrics, so that nobody is asked for them before the first scrape."""
        return ()

    def collect(self) -> Iterable[Metric]:
        live = self._live()

        def last(figure: Callable[[Record], float | None]) -> float | None:
            """Returns a figure of the last update, if there was one."""
            return figure(live.record) if live.record else None

        for name, count in live.totals.items():
            yield counter(f"{name}", f"{name.capitalize()} since the start.", {"": count})
        yield counter("leases", "Leases handed out, by why; expired: past their deadline.", live.leases, "event")
        every = {**dict.fromkeys(REASONS, 0), **live.refusals}
        yield counter("refusals", "Messages, gradients and checkpoints that did not count.", every, "reason")
        yield counter("wire_bytes", "Bytes on both links; theta counts once for all actors.", live.bytes, "direction")
        yield gauge("update", "Updates of the whole run that are done.", {"": live.version})
        yield gauge("updates_planned", "Updates after which the run is over.", {"": live.planned})
        yield gauge("actors", "Actors that are alive.", {"": live.actors})
        yield gauge("leases_out", "Leases whose answer or deadline is to come.", {"": live.leases_out})
        yield gauge("leases_missing", "Answers that the next update waits for.", {"": live.leases_missing})
        yield gauge("batches_waiting", "Open meta-batches whose answers are not complete.", {"": live.batches_waiting})
        lag = last(lambda record: record.lag)
        yield gauge("lag_updates", "Updates that the last rollouts were behind theta.", {"": lag})
        yield gauge("checkpoint_age_seconds", "Seconds since the last checkpoint.", {"": live.checkpoint_age_s})
        yield gauge("theta_norm", "Euclidean norm of theta.", {"": live.theta_norm})
        norm = last(lambda record: record.gradient_norm)
        yield gauge("gradient_norm", "Euclidean norm of the last meta-gradient, before clipping.", {"": norm})
        yield gauge("step_size", "Mean learned step size, by parameter.", live.step_sizes, "parameter")
        before, after = last(lambda record: record.success_before), last(lambda record: record.success_after)
        about = "Share of attempts that reach the exit, before and after adaptation, last batch."
        yield gauge("success_ratio", about, {"before": before, "after": after}, "adaptation")
        before, after = last(lambda record: record.ratio_before), last(lambda record: record.ratio_after)
        about = "Steps over those of the shortest path, before and after adaptation, last batch."
        yield gauge("steps_ratio", about, {"before": before, "after": after}, "adaptation")
        gain = last(lambda record: record.adaptation_gain)
        yield gauge("adaptation_gain", "Mean discounted return after adaptation less before it.", {"": gain})


def counter(name: str, about: str, values: Mapping[str, int], label: str = "") -> Metric:
    family = CounterMetricFamily(f"clew_learner_{name}", about, labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([key] if label else [], value)
    return family


def gauge(name: str, about: str, values: Mapping[str, float | None], label: str = "") -> Metric:
    """Makes a gauge; a value that is not known is NaN."""
    family = GaugeMetricFamily(f"clew_learner_{name}", about, labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([key] if label else [], math.nan if value is None else value)
    return family
