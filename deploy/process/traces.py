"""Sends spans to an OpenTelemetry collector, where the environment names one: OTEL_EXPORTER_OTLP_ENDPOINT."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.process.versions import require
from protocol.wire.traces import Span, Tell

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PATIENCE_S = 2.0  # that a collector may take; what it does not take is lost


@contextmanager
def telling(role: str) -> Iterator[Tell | None]:
    """Yields what sends a span, by a thread of its own; or None where no collector is named."""
    if not any(map(os.environ.get, ENDPOINTS)):
        yield None
        return
    require("opentelemetry", extra="otel")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanContext, TraceFlags

    resource = Resource.create({"service.name": f"clew-{role}"})
    processor = BatchSpanProcessor(OTLPSpanExporter(timeout=PATIENCE_S))

    def context(span: Span, number: int) -> SpanContext:
        return SpanContext(span.trace, number, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def tell(span: Span) -> None:
        processor.on_end(
            ReadableSpan(
                span.name,
                context(span, span.number),
                context(span, span.parent) if span.parent else None,
                resource,
                {f"clew.{name}": value for name, value in span.facts.items()},
                start_time=int(span.begin_s * 1e9),
                end_time=int(span.end_s * 1e9),
            )
        )

    try:
        yield tell
    finally:
        processor.shutdown()  # type: ignore[no-untyped-call]
