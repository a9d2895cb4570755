"""The tools that run on the provider's side: what they need, and the secrets that are named in them. Pure."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol, cast
from urllib.parse import urlsplit

from agent_jobs.errors import RequestError
from agent_jobs.jobs.response import JSON
from agent_jobs.request import validators
from agent_jobs.strict_schema import with_items

#: Tools whose calls a client has to answer in ways that nobody here can; those of functions the caller does.
CLIENT_TOOLS = ("custom", "namespace", "local_shell", "apply_patch", "computer", "computer_use_preview")
#: What a tool's calls are asked to bring along, by the beginning of the tool's type.
INCLUDED = {
    "web_search": "web_search_call.action.sources",
    "code_interpreter": "code_interpreter_call.outputs",
}
#: Tools that a name alone asks for.
NEEDING_NOTHING = ("web_search", "code_interpreter", "image_generation")
NEEDS_ONE_OF = ("server_url", "connector_id", "tunnel_id")
SIZES = ("low", "medium", "high")
IMAGE_FORMATS = ("png", "webp", "jpeg", "gif", "svg")
IMAGE_QUALITIES = ("low", "medium", "high", "xhigh", "max", "auto")

#: A secret enters by its name, with at most the scheme of an Authorization header before it.
_SECRET = re.compile(r"((?:(?:Bearer|Basic|Token|ApiKey) )?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_FIELDS = frozenset({"authorization", "headers"})


class Secret(Protocol):
    """A text that shows only to who asks for it, such as a setting's SecretStr."""

    def get_secret_value(self) -> str:
        """The text itself."""
        ...


def checked_tools(name: str, value: Any) -> list[JSON]:
    """The tools as they are sent, with what they need and do without.

    A type that is not known here passes, for the API grows; a literal secret passes nowhere.

    Raises:
        RequestError: A tool cannot be used; the sentence names it and the field.
    """
    tools = cast("list[Any]", value) if isinstance(value, list) else [None]
    return [_checked(name, tool) for tool in tools]


def resolved(body: JSON, secrets: Mapping[str, Secret]) -> JSON:
    """The body with each `${NAME}` in its tools' headers and authorization replaced: to be sent, never to be kept.

    Call it before every POST, and once at a start to refuse early.

    Raises:
        RequestError: A name is not among `secrets`, or its variable is empty; the sentence names it.
    """

    def replaced(text: str) -> str:
        scheme, name = _parts(text)
        if name not in secrets:
            raise RequestError(
                f"options.tools names ${{{name}}}, which this server may not read: ask the user to add {name} to "
                "AGENT_JOBS_SECRETS."
            )
        secret = secrets[name].get_secret_value()
        if not secret:
            raise RequestError(
                f"options.tools names ${{{name}}}, which is not set: ask the user to put {name} into the env of this "
                "server's entry."
            )
        return scheme + secret

    tools = body.get("tools")
    return {**body, "tools": _with_secrets(tools, replaced)} if tools else body


def _checked(name: str, tool: Any) -> JSON:
    kind = cast(JSON, tool).get("type") if isinstance(tool, dict) else None
    if not isinstance(kind, str):
        raise RequestError(f'{name} takes a list of hosted tools like {{"type":"code_interpreter"}}.')
    if kind in CLIENT_TOOLS:
        raise RequestError(f"{name} cannot take {kind} tools yet: nobody here would answer their calls.")
    tool = cast("dict[str, Any]", tool)
    _with_secrets(tool, _parts)
    where = f"{name} {kind[:40]}"
    check = _CHECKS.get("web_search" if kind.startswith("web_search") else kind)
    return {**tool, **check(where, tool)} if check else tool


def _web_search(where: str, tool: JSON) -> JSON:
    if "filters" in tool:
        filters = validators.mapping(f"{where}.filters", tool["filters"], '{"allowed_domains":["example.org"]}')
        if "allowed_domains" in filters:
            for domain in validators.texts(f"{where}.filters.allowed_domains", filters["allowed_domains"]):
                if "/" in domain:
                    raise RequestError(f"{where}.filters.allowed_domains takes bare domains like example.org.")
    if "search_context_size" in tool:
        validators.one_of(f"{where}.search_context_size", tool["search_context_size"], SIZES)
    if "user_location" in tool:
        place = validators.mapping(f"{where}.user_location", tool["user_location"], '{"country":"DE","city":"Berlin"}')
        return {"user_location": {"type": "approximate", **place}}
    return {}


def _file_search(where: str, tool: JSON) -> JSON:
    validators.texts(f"{where}.vector_store_ids", tool.get("vector_store_ids"))
    if "max_num_results" in tool:
        validators.whole(f"{where}.max_num_results", tool["max_num_results"], 1, 50)
    return {}


def _code_interpreter(where: str, tool: JSON) -> JSON:
    container = tool.get("container", {"type": "auto"})
    if isinstance(container, dict):
        return {"container": {"type": "auto", **cast("dict[str, Any]", container)}}
    if not isinstance(container, str) or not container:
        raise RequestError(f'{where}.container takes {{"type":"auto"}} or the id of a container.')
    return {}


def _image_generation(where: str, tool: JSON) -> JSON:
    if "model" in tool:
        validators.text(f"{where}.model", tool["model"])
    if "output_format" in tool:
        validators.one_of(f"{where}.output_format", tool["output_format"], IMAGE_FORMATS)
    if "quality" in tool:
        validators.one_of(f"{where}.quality", tool["quality"], IMAGE_QUALITIES)
    return {}


def _mcp(where: str, tool: JSON) -> JSON:
    validators.text(f"{where}.server_label", tool.get("server_label"))
    given = [name for name in NEEDS_ONE_OF if name in tool]
    if len(given) != 1:
        raise RequestError(f"{where} needs exactly one of {', '.join(NEEDS_ONE_OF)}.")
    address = validators.text(f"{where}.{given[0]}", tool[given[0]])
    if given == ["server_url"]:
        _check_url(f"{where}.server_url", address)
    if "headers" in tool:
        validators.mapping(f"{where}.headers", tool["headers"], '{"Authorization":"Bearer ${NAME}"}')
    approval = tool.get("require_approval", "always")
    if approval not in ("never", "always") and not isinstance(approval, dict):
        raise RequestError(f'{where}.require_approval takes "always", "never", or which tools need which.')
    return {}


def _function(where: str, tool: JSON) -> JSON:
    name = tool.get("name")
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z0-9_-]{1,64}", name):
        raise RequestError(f"{where} needs a name of at most 64 letters, digits, _ and -.")
    if "parameters" in tool:
        parameters = validators.mapping(f"{where}.parameters", tool["parameters"], '{"type":"object","properties":{}}')
        return {"parameters": with_items(parameters)}
    return {}


def _check_url(where: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable, parts = False, None
    if not usable or parts is None:
        raise RequestError(f"{where} takes a web address like https://example.org/mcp.")
    if parts.username is not None or parts.password is not None:
        _refuse_literal(where)


_CHECKS: Mapping[str, Callable[[str, JSON], JSON]] = {
    "web_search": _web_search,
    "file_search": _file_search,
    "code_interpreter": _code_interpreter,
    "image_generation": _image_generation,
    "mcp": _mcp,
    "function": _function,
}


def _with_secrets(value: Any, change: Callable[[str], object], *, inside: bool = False, more: bool = False) -> Any:
    """The value with every text changed that stands where secrets stand."""
    if isinstance(value, list):
        return [_with_secrets(each, change, inside=inside, more=more) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return change(str(value)) if inside and value is not None else value
    changed: dict[str, Any] = {}
    for key, each in cast("dict[str, Any]", value).items():
        name = str(key).lower()
        secret = inside or name in _SECRET_FIELDS or (more and name == "value")
        changed[key] = _with_secrets(each, change, inside=secret, more=more or name == "domain_secrets")
    return changed


def _parts(text: str) -> tuple[str, str]:
    """The scheme and the name in a text that stands for a secret."""
    match = _SECRET.fullmatch(text)
    if match is None:
        _refuse_literal("options.tools")
    return match[1], match[2]


def _refuse_literal(where: str) -> NoReturn:
    raise RequestError(
        f'{where} takes secrets by name only, like "authorization":"${{NAME}}" or "Bearer ${{NAME}}" in headers: ask '
        "the user to list NAME in AGENT_JOBS_SECRETS."
    )
