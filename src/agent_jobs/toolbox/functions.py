"""Convert the tools of a server to functions that a model may call: names, descriptions and parameters. Pure."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

from agent_jobs.strict_schema import is_strict
from agent_jobs.toolbox.schema import OPEN, fit_schema

NAME_CHARS = 64  # the API's limit of a function's name
DESCRIPTION_CHARS = 1_024  # the API's limit of a function's description
MAX_FUNCTIONS = 128  # the API's limit of functions in one request

_DIGEST_CHARS = 10
_PLAIN = re.compile(rf"(?!.*_[0-9a-f]{{{_DIGEST_CHARS}}}$)[A-Za-z0-9_-]{{1,{NAME_CHARS}}}")


def build_function_name(server: str, tool: str) -> str:
    """Return the only name of a tool, `server__tool`, which is the same in every process.

    A name that the API refuses, or that another tool could have too, ends in a digest of both names.
    """
    name = f"{server}__{tool}"
    # If `__` cannot begin before the end of the server, a plain name belongs to one server and one tool.
    if _PLAIN.fullmatch(name) and "__" not in f"{server}_":
        return name
    digest = hashlib.sha256(f"{server}\0{tool}".encode(errors="surrogatepass")).hexdigest()[:_DIGEST_CHARS]
    return f"{_sanitize_name(name)[: NAME_CHARS - _DIGEST_CHARS - 1]}_{digest}"


def prefix_of(server: str) -> str:
    """Return the beginning of the names of all functions of a server."""
    return _sanitize_name(f"{server}__")[: NAME_CHARS - _DIGEST_CHARS - 1]


def is_function_of(name: str, names: Sequence[str]) -> bool:
    """Return True if a function of this name belongs to a server of a job.

    A server's name may contain slashes, so it may end before each of them.
    """
    servers = chain.from_iterable(_list_path_beginnings(each.removeprefix("!")) for each in names)
    return any(name.startswith(prefix_of(server)) for server in servers)


def build_function(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a function tool for the body of POST /responses."""
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
    """Return a description within its limit, cut after a sentence in its second half, else after a word."""
    text = re.sub(r"[ \t]+\n|\n{3,}", "\n", text.strip())
    if len(text) <= DESCRIPTION_CHARS:
        return text
    head = text[: DESCRIPTION_CHARS - 2]
    end = max(head.rfind(mark) + 1 for mark in (". ", ".\n", "\n"))
    if end <= len(head) // 2:
        end = max(head.rfind(" "), len(head) // 2)
    return f"{head[:end].rstrip()} …"


def _list_path_beginnings(path: str) -> Iterable[str]:
    """Return a path and what stands before each of its slashes: `a`, `a/b` and `a/b/c`."""
    return accumulate(path.split("/"), "{}/{}".format)


def _sanitize_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
