"""What a follow-up goes on from, as upstream takes it: by its id, or said again item by item. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

from agent_jobs.job import JSON

#: How a request names what went before it; only one of them may stand there.
LINKS = ("previous_response_id", "conversation")
#: What upstream says of a link that it does not know (any more).
FORGOTTEN_CODES = frozenset({"previous_response_not_found", "conversation_not_found"})
ENCRYPTED = "reasoning.encrypted_content"


def continued(body: JSON, link: JSON, exchanges: Sequence[tuple[JSON, JSON]] = ()) -> JSON:
    """The body with what went before it: a link that upstream knows, or all that was said, oldest first.

    Args:
        body: A request that stands for itself.
        link: `previous_response_id` or `conversation`.
        exchanges: Requests and the responses to them, where upstream does not know them.
    """
    if not exchanges:
        return {**body, **link}
    said = [item for request, response in exchanges for item in (*_asked(request), *_answered(response))]
    kept = {name: value for name, value in body.items() if name not in LINKS}
    # Nothing of this thread may be known upstream by the next time either.
    include = [*(name for name in cast("list[str]", body.get("include", [])) if name != ENCRYPTED), ENCRYPTED]
    return {**kept, "input": [*said, *_asked(body)], "include": include}


def forgotten(code: str, param: str) -> bool:
    """Whether a refusal means that upstream does not know what the request goes on from."""
    return code in FORGOTTEN_CODES or param in LINKS


def _asked(request: JSON) -> Iterable[JSON]:
    """A request's input as items."""
    given = request.get("input")
    if isinstance(given, list):
        return [cast(JSON, item) for item in cast("list[object]", given) if isinstance(item, dict)]
    return [{"role": "user", "content": given}]


def _answered(response: JSON) -> Iterable[JSON]:
    """A response's output as input: without the ids of what upstream may have forgotten, and what only they explain."""
    output = response.get("output")
    for item in cast("list[object]", output) if isinstance(output, list) else []:
        match cast("dict[str, Any]", item) if isinstance(item, dict) else {}:
            case {"type": "message", "content": content, **rest}:
                phase = {"phase": rest["phase"]} if rest.get("phase") else {}
                yield {"type": "message", "role": "assistant", "content": content, **phase}
            case {"type": "reasoning", "encrypted_content": str() as encrypted, **rest} if encrypted:
                yield {"type": "reasoning", "summary": rest.get("summary") or [], "encrypted_content": encrypted}
            case {"type": "function_call" | "custom_tool_call" | "compaction", **rest} as whole:
                yield {name: value for name, value in whole.items() if name not in ("id", "status")}
            case _:
                pass  # what a hosted tool did is told by the message that follows it
