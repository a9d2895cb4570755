"""Send spans to the collector that the variables of OpenTelemetry name."""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from agent_jobs.clock import Clock
from agent_jobs.store.base import Store

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from agent_jobs.engine.job_traces import TraceRunner

logger = logging.getLogger(__name__)

LAST_S = 5.0  # for the spans at the end of this process: a collector is near

#: The variables that request traces. The SDK itself reads them, and all others that begin with OTEL_.
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
#: Its values that ask for content in spans.
CONTENT_VALUES = frozenset({"1", "true", "span_only", "span_and_event"})
NO_EXTRA = (
    "%s is set, but no traces are sent, because the extra otel is not installed: install agent-jobs[team,otel], or "
    "remove the variable."
)


def find_endpoint_variable(environ: Mapping[str, str]) -> str:
    """Return the variable that asks for traces; empty if none does."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    return next((name for name in ENDPOINT_VARIABLES if environ.get(name, "").strip()), "")


def captures_content(environ: Mapping[str, str]) -> bool:
    """Return True if spans may have prompts, answers, and arguments and results of tools."""
    return environ.get(CONTENT_VARIABLE, "").strip().lower() in CONTENT_VALUES


def create_provider() -> "TracerProvider":
    """Return what sends spans to the collector, in the background and in batches.

    Raises:
        ImportError: The extra is not installed.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from agent_jobs import __version__

    ours = Resource({"service.name": "agent-jobs", "service.version": __version__})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def trace_requests(provider: "TracerProvider") -> None:
    """Have the MCP library send the spans of its requests, too, unless the process has another provider."""
    from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider, set_tracer_provider

    if isinstance(get_tracer_provider(), ProxyTracerProvider):
        set_tracer_provider(provider)


@asynccontextmanager
async def open_traces(store: Store, clock: Clock, environ: Mapping[str, str]) -> AsyncGenerator["TraceRunner | None"]:
    """Open what sends the spans of finished jobs, and send the last ones at the end; None if nothing asks for them."""
    variable = find_endpoint_variable(environ)
    provider: TracerProvider | None = None
    if variable:
        try:
            provider = await anyio.to_thread.run_sync(create_provider)
        except ImportError:
            logger.warning(NO_EXTRA, variable)
    if provider is None:
        yield None
        return
    from agent_jobs.engine.job_traces import TraceRunner

    trace_requests(provider)
    yield TraceRunner(store, clock, provider.get_tracer("agent-jobs"), has_content=captures_content(environ))
    with anyio.move_on_after(LAST_S, shield=True):
        await anyio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)
