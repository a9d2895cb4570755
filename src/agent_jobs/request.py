"""What the caller asked for, as the body of POST /responses. Pure, but for reading our own data file once."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any, cast

from agent_jobs.errors import RequestError
from agent_jobs.job import Mode

JSON = Mapping[str, Any]

#: Values of reasoning.effort in the API; a model may refuse some of them and says so itself.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
#: Options that speak to us and not to upstream.
OURS = ("allow_duplicate", "key")
KEY_CHARS = 200
TITLE_CHARS = 80
#: The API's limits on metadata, one pair of which is ours.
METADATA_PAIRS, METADATA_KEY_CHARS, METADATA_VALUE_CHARS = 15, 64, 512


def build(
    prompt: str,
    *,
    job_id: str,
    model: str | None = None,
    effort: str | None = None,
    web_search: bool = False,
    options: JSON | None = None,
) -> JSON:
    """The body for a prompt and its options.

    `store` is always said: where it is left out, some projects forget a background response after ten minutes.
    `metadata.job_id` is what a person finds in the provider's dashboard when an id got lost.

    Raises:
        RequestError: Something cannot be asked for; the sentence names what can.
    """
    if not prompt.strip():
        raise RequestError("prompt is empty: say what the job is to do.")
    body: dict[str, Any] = {
        "model": model or models()["default"],
        "input": prompt,
        "background": True,
        "stream": True,
        "store": True,
        "stream_options": {"include_obfuscation": False},
        "metadata": {"job_id": job_id},
    }
    if effort is not None:
        body["reasoning"] = {"effort": one_of("effort", effort, EFFORTS)}
    if web_search:
        body["tools"] = [{"type": "web_search"}]
        body["include"] = ["web_search_call.action.sources"]
    for name, value in (options or {}).items():
        if name in OURS:
            continue
        add = _OPTIONS[one_of("options", name, (*_OPTIONS, *OURS))]
        add(body, name, value)
    # Half a surrogate pair cannot be sent.
    return json.loads(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))


def sent_as(body: JSON, mode: Mode) -> JSON:
    """The body as an endpoint takes it: in the background with a stream, without one, or held open."""
    dropped = {
        "background_stream": (),
        "background": ("stream", "stream_options"),
        # Who runs nothing in the background stores nothing either, and some refuse to be asked.
        "foreground": ("background", "store", "stream_options"),
    }[mode]
    return {name: value for name, value in body.items() if name not in dropped}


def hash_of(body: JSON) -> str:
    """What the same work hashes to, whatever job it is asked for in."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "job_id"}
    canonical = json.dumps({**body, "metadata": metadata}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def title_of(prompt: str) -> str:
    """The first line of a prompt, short enough for a list."""
    line = next((line.strip() for line in prompt.splitlines() if line.strip()), "")
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1] + "…"


def key_of(options: JSON | None) -> str | None:
    """The caller's own key for the job, under which it exists once."""
    key = (options or {}).get("key")
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= KEY_CHARS):
        raise RequestError(f"options.key takes a text of at most {KEY_CHARS} characters.")
    return key


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """The value, if it is allowed; otherwise a sentence that names the nearest one, or all."""
    names = list(allowed)
    if value in names:
        return value
    import difflib  # only for mistakes, and not for the time a host waits for `initialize`

    near = difflib.get_close_matches(value, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(names)}."
    raise RequestError(f"{name} does not take {value[:40]!r}: {hint}")


@cache
def models() -> Mapping[str, Any]:
    """What data/models.toml says."""
    import tomllib  # not needed to answer `initialize`

    return tomllib.loads(resources.files("agent_jobs").joinpath("data", "models.toml").read_text())


def _number(least: int) -> Callable[[dict[str, Any], str, Any], None]:
    def add(body: dict[str, Any], name: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise RequestError(f"options.{name} takes a whole number of at least {least}.")
        body[name] = value

    return add


def _text(body: dict[str, Any], name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise RequestError(f"options.{name} takes a text.")
    body[name] = value


def _verbosity(body: dict[str, Any], name: str, value: Any) -> None:
    body["text"] = {"verbosity": one_of(f"options.{name}", str(value), ("low", "medium", "high"))}


def _metadata(body: dict[str, Any], name: str, value: Any) -> None:
    pairs = cast("dict[Any, Any]", value) if isinstance(value, dict) else {None: None}
    fits = len(pairs) <= METADATA_PAIRS and all(
        isinstance(key, str) and len(key) <= METADATA_KEY_CHARS and key != "job_id"
        and isinstance(text, str) and len(text) <= METADATA_VALUE_CHARS
        for key, text in pairs.items()
    )  # fmt: skip
    if not fits:
        raise RequestError(
            f"options.{name} takes up to {METADATA_PAIRS} texts of {METADATA_VALUE_CHARS} characters by name; "
            "job_id is ours."
        )
    body["metadata"] = {**pairs, **body["metadata"]}


def _tools(body: dict[str, Any], name: str, value: Any) -> None:
    tools = cast("list[Any]", value) if isinstance(value, list) else [None]
    for tool in tools:
        kind = cast(JSON, tool).get("type") if isinstance(tool, dict) else None
        if kind in ("function", "custom"):
            raise RequestError(f"options.{name} cannot take {kind} tools yet: nobody here would answer their calls.")
        if not isinstance(kind, str):
            raise RequestError(f'options.{name} takes a list of hosted tools like {{"type":"code_interpreter"}}.')
    body["tools"] = [*body.get("tools", []), *tools]


_OPTIONS: Mapping[str, Callable[[dict[str, Any], str, Any], None]] = {
    "instructions": _text,
    "max_output_tokens": _number(16),
    "max_tool_calls": _number(1),
    "metadata": _metadata,
    "service_tier": _text,
    "tools": _tools,
    "verbosity": _verbosity,
}
