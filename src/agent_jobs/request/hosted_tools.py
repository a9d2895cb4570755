"""Check the tools that run on the provider's side, and fill in the secrets that are named in them. Pure."""

import re
from collections.abc import Callable, Mapping, Set
from typing import Any, NoReturn, Protocol, cast

from agent_jobs.errors import Argument, RequestError
from agent_jobs.jobs.response import JSON
from agent_jobs.strict_schema import add_missing_items
from agent_jobs.validation import API_NAME, STRING, STRINGS, Choice, Kind, mapping, value_error, whole_number
from agent_jobs.web_address import split_web_address

#: The client has to answer their calls, and agent-jobs cannot. Calls of functions are answered by the caller.
CLIENT_TOOLS = ("custom", "namespace", "local_shell", "apply_patch", "computer", "computer_use_preview")
#: What the API is asked to include with a tool's calls, by the beginning of the tool's type.
INCLUDED = {
    "web_search": "web_search_call.action.sources",
    "code_interpreter": "code_interpreter_call.outputs",
}
#: Tools that need no field but their type.
NEEDING_NOTHING = ("web_search", "code_interpreter", "image_generation")
TOOLS = Argument("options.tools")
NEEDS_ONE_OF = ("server_url", "connector_id", "tunnel_id")
SIZES = ("low", "medium", "high")
IMAGE_FORMATS = ("png", "webp", "jpeg", "gif", "svg")
IMAGE_QUALITIES = ("low", "medium", "high", "xhigh", "max", "auto")
TYPE_CHARS = 40  # enough to recognise a type in an error
RESULTS_MAX = 50  # the API's limit

#: A secret enters by its name, with at most the scheme of an Authorization header before it.
_SECRET = re.compile(r"((?:(?:Bearer|Basic|Token|ApiKey) )?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_FIELDS = frozenset({"authorization", "headers"})
#: Fields that hold one only somewhere below another field.
_SECRET_FIELDS_BELOW = {"domain_secrets": frozenset({"value"})}
_CONTAINER: Kind[Any] = Kind(
    '{"type":"auto"} or the id of a container',
    lambda value: isinstance(value, dict) or (isinstance(value, str) and bool(value)),
)
_APPROVAL: Kind[Any] = Kind(
    '"always", "never", or which tools need which',
    lambda value: value in ("never", "always") or isinstance(value, dict),
)


class Secret(Protocol):
    """A string that is shown only on demand, such as a setting's SecretStr."""

    def get_secret_value(self) -> str:
        """Return the string itself."""
        ...


def check_tools(name: str, value: Any) -> list[JSON]:
    """Return the tools as they are sent, with the fields that they need.

    A type that is not known here passes, for the API grows; a literal secret passes nowhere.

    Raises:
        RequestError: A tool cannot be used. The sentence names it and the field.
    """
    if not isinstance(value, list):
        _refuse_tools(name, value)
    return [_check_hosted_tool(name, tool) for tool in cast("list[Any]", value)]


def fill_in_secrets(body: JSON, secrets: Mapping[str, Secret]) -> JSON:
    """Return the body with each `${NAME}` in its tools' headers and authorization replaced, to be sent and not kept.

    Call it before every POST, and once at a start to refuse early.

    Raises:
        RequestError: A name is not among `secrets`, or its variable is empty. The sentence names it.
    """
    tools = body.get("tools")
    if not tools:
        return body
    return {**body, "tools": _map_secrets(tools, lambda text: _fill_secret(text, secrets))}


def _fill_secret(text: str, secrets: Mapping[str, Secret]) -> str:
    """Return a string with its `${NAME}` replaced."""
    scheme, name = _split_secret(text)
    if name not in secrets:
        raise RequestError(
            "A hosted tool names ${{{secret}}}, which may not be read here.", "secret_not_allowed", secret=name
        )
    secret = secrets[name].get_secret_value()
    if not secret:
        raise RequestError("A hosted tool names ${{{secret}}}, which is not set.", "unset_secret", secret=name)
    return scheme + secret


def _refuse_tools(name: str, value: object) -> NoReturn:
    raise value_error(name, 'a list of hosted tools like {"type":"code_interpreter"}', value)


def _check_hosted_tool(name: str, value: Any) -> JSON:
    """Return one tool with the fields that it needs."""
    match value:
        case {"type": str() as kind}:
            tool = cast("dict[str, Any]", value)
        case _:
            _refuse_tools(name, value)
    if kind in CLIENT_TOOLS:
        raise RequestError(
            "{name} cannot contain {kind} tools yet, since agent-jobs cannot answer their calls.",
            "not_supported",
            name=Argument(name),
            kind=kind,
        )
    _map_secrets(tool, _split_secret)
    base = "web_search" if kind.startswith("web_search") else kind  # its versions end in a date
    check = _CHECKS.get(base)
    if check is None:
        return tool
    return {**tool, **check(f"{name} {kind[:TYPE_CHARS]}", tool)}


def _check_fields(where: str, tool: JSON, kinds: Mapping[str, Kind[Any]]) -> None:
    """Refuse a field that is there and not of its kind."""
    for name, kind in kinds.items():
        if name in tool:
            kind.check(f"{where}.{name}", tool[name])


def _check_web_search(where: str, tool: JSON) -> JSON:
    _check_fields(
        where,
        tool,
        {
            "filters": mapping('{"allowed_domains":["example.org"]}'),
            "search_context_size": Choice(SIZES),
            "user_location": mapping('{"country":"DE","city":"Berlin"}'),
        },
    )
    if "allowed_domains" in tool.get("filters", {}):
        _check_domains(f"{where}.filters.allowed_domains", tool["filters"]["allowed_domains"])
    if "user_location" not in tool:
        return {}
    return {"user_location": {"type": "approximate", **tool["user_location"]}}


def _check_domains(where: str, value: Any) -> None:
    if any("/" in domain for domain in STRINGS.check(where, value)):
        raise value_error(where, "bare domains like example.org", value)


def _check_file_search(where: str, tool: JSON) -> JSON:
    STRINGS.check(f"{where}.vector_store_ids", tool.get("vector_store_ids"))
    _check_fields(where, tool, {"max_num_results": whole_number(1, RESULTS_MAX)})
    return {}


def _check_code_interpreter(where: str, tool: JSON) -> JSON:
    container = _CONTAINER.check(f"{where}.container", tool.get("container", {"type": "auto"}))
    if isinstance(container, str):
        return {}
    return {"container": {"type": "auto", **container}}


def _check_image_generation(where: str, tool: JSON) -> JSON:
    kinds = {"model": STRING, "output_format": Choice(IMAGE_FORMATS), "quality": Choice(IMAGE_QUALITIES)}
    _check_fields(where, tool, kinds)
    return {}


def _check_mcp(where: str, tool: JSON) -> JSON:
    STRING.check(f"{where}.server_label", tool.get("server_label"))
    given = [name for name in NEEDS_ONE_OF if name in tool]
    if len(given) != 1:
        raise value_error(where, f"exactly one of {', '.join(NEEDS_ONE_OF)}", tool)
    address = STRING.check(f"{where}.{given[0]}", tool[given[0]])
    if given == ["server_url"]:
        _check_url(f"{where}.server_url", address)
    _check_fields(
        where, tool, {"headers": mapping('{"Authorization":"Bearer ${NAME}"}'), "require_approval": _APPROVAL}
    )
    return {}


def _check_function(where: str, tool: JSON) -> JSON:
    API_NAME.check(f"{where}.name", tool.get("name"))
    if "parameters" not in tool:
        return {}
    parameters = mapping('{"type":"object","properties":{}}').check(f"{where}.parameters", tool["parameters"])
    return {"parameters": add_missing_items(parameters)}


def _check_url(where: str, url: str) -> None:
    parts = split_web_address(url)
    if parts is None:
        raise value_error(where, "a web address like https://example.org/mcp", url)
    if "@" in parts.netloc:
        _refuse_literal_secret(where)


_CHECKS: Mapping[str, Callable[[str, JSON], JSON]] = {
    "web_search": _check_web_search,
    "file_search": _check_file_search,
    "code_interpreter": _check_code_interpreter,
    "image_generation": _check_image_generation,
    "mcp": _check_mcp,
    "function": _check_function,
}


def _map_secrets(
    value: Any, change: Callable[[str], object], *, inside: bool = False, fields: Set[str] = _SECRET_FIELDS
) -> Any:
    """Return the value with every string in a place for secrets changed.

    Args:
        value: A tool, or a part of one.
        change: Returns the replacement of a string.
        inside: True within a field that holds secrets: all of it is changed.
        fields: The names of the fields that hold secrets here.
    """
    match value:
        case [*items]:
            return [_map_secrets(each, change, inside=inside, fields=fields) for each in items]
        case {**facts}:
            return {
                key: _map_field(str(key).lower(), each, change, inside=inside, fields=fields)
                for key, each in facts.items()
            }
        case str() | int() | float() if inside:
            return change(str(value))
        case _:
            return value


def _map_field(name: str, value: Any, change: Callable[[str], object], *, inside: bool, fields: Set[str]) -> Any:
    below = fields | _SECRET_FIELDS_BELOW.get(name, frozenset())
    return _map_secrets(value, change, inside=inside or name in fields, fields=below)


def _split_secret(text: str) -> tuple[str, str]:
    """Return the scheme and the name in a reference to a secret."""
    match = _SECRET.fullmatch(text)
    if match is None:
        _refuse_literal_secret(TOOLS)
    return match[1], match[2]


def _refuse_literal_secret(where: str) -> NoReturn:
    raise RequestError(
        '{name} accepts secrets by name only, like "authorization":"${{NAME}}".', "literal_secret", name=Argument(where)
    )
