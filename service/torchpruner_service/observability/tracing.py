"""OpenTelemetry traces from a client through the API to a worker, where an endpoint is configured.

Without one everything here does nothing and imports nothing of OpenTelemetry's SDK.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torchpruner_service.settings import Settings
from torchpruner_service.state.job_record import JobRecord

_enabled = False


def configure_tracing(settings: Settings, service: str) -> None:
    """Send spans to ``settings.otlp_endpoint``, if there is one."""
    global _enabled
    if not settings.otlp_endpoint or _enabled:
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    endpoint = settings.otlp_endpoint.rstrip("/") + "/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    _enabled = True


def flush_traces() -> None:
    """Send what is still buffered; a work-horse ends right after its job."""
    if _enabled:
        from opentelemetry import trace

        provider: Any = trace.get_tracer_provider()
        provider.force_flush(5000)


@contextmanager
def request_span(name: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """A span around one HTTP request, continuing the client's trace; yields it or ``None``."""
    if not _enabled:
        yield None
        return
    from opentelemetry import propagate, trace

    context = propagate.extract(dict(headers))
    tracer = trace.get_tracer(__name__)
    with tracer.start_as_current_span(name, context, kind=trace.SpanKind.SERVER) as span:
        yield span


def current_trace() -> dict[str, str]:
    """The trace to hand to a job: W3C ``traceparent`` headers."""
    if not _enabled:
        return {}
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


@contextmanager
def job_span(record: JobRecord) -> Iterator[None]:
    """A span around one attempt of a job, in the trace of the request that asked for it."""
    if not _enabled:
        yield
        return
    from opentelemetry import propagate, trace

    context = propagate.extract(record.trace)
    tracer = trace.get_tracer(__name__)
    with tracer.start_as_current_span(
        f"job {record.kind}", context, kind=trace.SpanKind.CONSUMER
    ) as span:
        span.set_attribute("torchpruner.model", record.model)
        span.set_attribute("torchpruner.job", record.id)
        span.set_attribute("torchpruner.attempt", record.attempt)
        yield
