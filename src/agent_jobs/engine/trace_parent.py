"""Read the span of the call that is being answered, so that a job can be shown below it."""

import sys


def read_trace_parent() -> str:
    """Return the current span as a W3C traceparent; empty if there is none.

    The MCP library sets it from the caller's `_meta`. Where that library is not loaded, there is none.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
