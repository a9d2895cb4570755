"""Refuse a request that its model certainly cannot read."""

from collections.abc import Callable, Sequence

import anyio

from agent_jobs.attachments.attachment import Attachment
from agent_jobs.errors import RequestError
from agent_jobs.jobs.response import JSON
from agent_jobs.request.start_request import StartRequest

MOST_TOKEN_CHARS = 8  # ordinary text has fewer characters a token on average, so this never refuses what fits
SMALLEST_CONTEXT = 8_000  # tokens that every model reads, so that a short text needs no price list


async def check_context_size(
    request: StartRequest,
    body: JSON,
    attached: Sequence[Attachment],
    history_tokens: int,
    find_context: Callable[[str], int | None],
) -> None:
    """Raise RequestError for what the model certainly cannot read; an unknown model is not checked."""
    texts = [file.data.decode("utf-8", "replace") for file in attached if file.kind == "text"]
    tokens_of = {
        "the prompt": max(map(_count_least_tokens, request.prompts)),
        "files": sum(map(_count_least_tokens, texts)),
        "instructions": _count_least_tokens(str(body.get("instructions") or "")),
        "the job before": history_tokens,
    }
    least, model = sum(tokens_of.values()), str(body["model"])
    if least <= SMALLEST_CONTEXT:
        return
    context = await anyio.to_thread.run_sync(find_context, model)
    if context is None or least <= context:
        return
    if tokens_of["the prompt"] == least:
        raise RequestError(
            "The prompt has at least {tokens:,} tokens by estimate, and {model} reads at most {most:,}.",
            "prompt_too_long",
            tokens=least,
            model=model,
            most=context,
        )
    listed = ", ".join(f"{name} {tokens:,}" for name, tokens in tokens_of.items() if tokens)
    raise RequestError(
        "The request has at least {tokens:,} tokens by estimate ({parts}), and {model} reads at most {most:,}.",
        "request_too_long",
        tokens=least,
        parts=listed,
        model=model,
        most=context,
    )


def _count_least_tokens(text: str) -> int:
    return len(" ".join(text.split())) // MOST_TOKEN_CHARS  # runs of blanks are single tokens
