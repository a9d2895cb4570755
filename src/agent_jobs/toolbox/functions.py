"""The tools of a server as functions that a model may call: their names, descriptions and parameters. Pure."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent_jobs.toolbox.schema import OPEN, fit_schema, is_strict

#: What the API takes in a function's name, and how much of a description.
NAME_CHARS, DESCRIPTION_CHARS = 64, 1_024
#: How many functions the API takes in one request.
MAX_FUNCTIONS = 128

_DIGEST_CHARS = 10
_PLAIN = re.compile(rf"(?!.*_[0-9a-f]{{{_DIGEST_CHARS}}}$)[A-Za-z0-9_-]{{1,{NAME_CHARS}}}")


def function_name(server: str, tool: str) -> str:
    """The one name of a tool, `server__tool`, the same in every process.

    A name that the API does not take, or that another tool could have as well, ends in a digest of both names.
    """
    name = f"{server}__{tool}"
    # With no `__` before the first one, a plain name belongs to one server and one tool.
    if _PLAIN.fullmatch(name) and "__" not in server and not server.endswith("_"):
        return name
    digest = hashlib.sha256(f"{server}\0{tool}".encode(errors="surrogatepass")).hexdigest()[:_DIGEST_CHARS]
    return f"{_sanitize_name(name)[: NAME_CHARS - _DIGEST_CHARS - 1]}_{digest}"


def prefix_of(server: str) -> str:
    """How the names of all functions of a server begin."""
    return _sanitize_name(f"{server}__")[: NAME_CHARS - _DIGEST_CHARS - 1]


def is_given(name: str, names: Sequence[str]) -> bool:
    """Whether a function of this name is of a server that a job was given.

    A server's name may have slashes in it, so what is before each of them may be one.
    """
    servers = {given[:end] for given in (each.removeprefix("!") for each in names) for end in _list_name_ends(given)}
    return any(name.startswith(prefix_of(server)) for server in servers)


def build_function(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A function tool for the body of POST /responses."""
    parameters = fit_schema(schema)
    if parameters is None:
        parameters = OPEN
        description = f"{description}\nArguments: {json.dumps(schema, default=str)[: DESCRIPTION_CHARS // 2]}"
    return {
        "type": "function",
        "name": name,
        "description": shorten_description(description),
        "parameters": parameters,
        "strict": is_strict(parameters),
    }


def shorten_description(text: str) -> str:
    """A description within its limit, cut after a sentence if there is one in its second half, else after a word."""
    text = re.sub(r"[ \t]+\n|\n{3,}", "\n", text.strip())
    if len(text) <= DESCRIPTION_CHARS:
        return text
    head = text[: DESCRIPTION_CHARS - 2]
    end = max(head.rfind(mark) + 1 for mark in (". ", ".\n", "\n"))
    if end <= len(head) // 2:
        end = max(head.rfind(" "), len(head) // 2)
    return f"{head[:end].rstrip()} …"


def _list_name_ends(given: str) -> list[int]:
    return [*(at for at, letter in enumerate(given) if letter == "/"), len(given)]


def _sanitize_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
