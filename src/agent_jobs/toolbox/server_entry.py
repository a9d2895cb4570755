"""Read one server's entry in the user's file: check own keys, and translate or skip those of other programs. Pure.

A host's file may be used as it is, so a key of another program is no error. A key that could be a rule with a typing
error is refused: if it was skipped, more would run than the user allowed.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeGuard, cast, get_args
from urllib.parse import urlsplit

Approval = Literal["ask", "always", "never"]
APPROVALS: tuple[str, ...] = get_args(Approval)

#: The transport by the names that programs give to it, here and below as `_normalize_key` writes them.
TRANSPORTS = {"stdio": "stdio", "local": "stdio", "http": "http", "streamablehttp": "http", "remote": "http"}
#: The key that a type uses, and the key that it does not use.
_KEYS_OF_KIND = {"stdio": ("command", "url"), "http": ("url", "command")}

#: Keys of other programs, and the own key of the same meaning.
ALIASES = {
    "serverurl": "url",
    "httpurl": "url",
    "environment": "env",
    "httpheaders": "headers",
    "workingdirectory": "cwd",
    "transport": "type",
    "transporttype": "type",
}
#: Keys of other programs that switch a server off with `false`.
SWITCHES = frozenset({"enabled", "isenabled", "active", "isactive"})
#: Keys of other programs for tools that may not be used, and for the only ones that may.
DENIES = frozenset({"disabledtools", "excludetools", "excludedtools"})
ALLOWS = frozenset({"enabledtools", "includetools", "includedtools", "tools"})
#: Keys that have no effect on what a server does or may do here.
INERT = frozenset(
    {
        *("autoapprove", "alwaysallow", "trust", "description", "name", "title", "displayname", "id", "version"),
        *("icon", "iconurl", "logo", "homepage", "documentation", "category", "tags", "note", "notes", "comment"),
        *("gallery", "source", "registry", "provider", "dev", "watch", "watchpaths"),
    }
)
#: Keys whose effect a user may miss, and the key to use instead.
MISSED = {
    "timeout": "timeout is not used, since hosts disagree on its unit: write timeout_s",
    "envfile": "envFile is not read: write its variables into env",
    "oauth": "oauth is not used, since no job can sign in: write a token into headers",
    "auth": "auth is not used, since no job can sign in: write a token into headers",
}
#: What each known key of other programs means.
_MEANINGS = {
    **dict.fromkeys(ALIASES, "alias"),
    **dict.fromkeys(DENIES, "deny"),
    **dict.fromkeys(ALLOWS, "allow"),
    **dict.fromkeys(SWITCHES | INERT, "inert"),
    **dict.fromkeys(MISSED, "missed"),
}

_RULE_LIKE = re.compile(
    "allow|deny|denie|approv|permi|block|forbid|restrict|exclu|inclu|confirm|readonly|disabl|enabl|filter|policy|tools?$"
)
_NAME = re.compile(r"(?!none\Z)[A-Za-z0-9@][A-Za-z0-9@ ._/-]{0,39}")
_COMMENT_MARKS = ("$", "_", "/", "#", "x-")  # with which people begin a key that is a comment
RULE_CUTOFF = 0.7  # of difflib: a rule with a typing error must not be skipped
PLACE_CUTOFF = 0.8  # stricter, since other programs have keys of similar names
KEY_CHARS = 40  # of a key in a sentence: an unknown key may be of any length
_VARIABLE_NAME = re.compile(r"[^=\0]+")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_INPUT = re.compile(r"\$\{input:[^}]*\}")
VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class WrongEntryError(Exception):
    """An entry that cannot be used; the message is the rest of a sentence."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The fields of an entry's configuration, None if it is switched off, and notes on its unused keys."""

    fields: Mapping[str, Any] | None
    notes: Sequence[str] = ()


def read_entry(name: str, written: Any) -> Entry:
    """Read the entry of a server.

    Raises:
        WrongEntryError: It cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise WrongEntryError("a server's name has at most 40 letters, digits, spaces, @ . _ / and -, and is not none.")
    if not isinstance(written, dict):
        raise WrongEntryError('a server is an object like {"command": "uvx", "args": ["mcp-server-time"]}.')
    entry = cast("dict[str, Any]", written)
    filled = {key: value for key, value in entry.items() if value not in _BLANKS.get(key, (None,))}
    given = {key: value for key, value in filled.items() if key in KEYS}
    foreign = {key: value for key, value in filled.items() if key not in KEYS}
    if _is_switched_off(given.pop("disabled", False), foreign):
        return Entry(None)
    _refuse_repeated_rules(getattr(entry, "repeated", ()))
    notes: list[str] = []
    _translate_foreign(foreign, given, notes)
    _split_command(given)
    _keep_command_or_url(given, notes)
    return Entry(_parse_fields(given), notes)


def _parse_fields(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of the configuration, each checked by its parser."""
    fields = {key: KEYS[key](key, value) for key, value in given.items()}
    _refuse_inputs(fields)
    return fields


def _refuse_repeated_rules(repeated: Iterable[str]) -> None:
    for key in repeated:
        if key in RULES or _normalize_key(key) in DENIES | ALLOWS:
            raise WrongEntryError(f"{key} is written more than once.")


def _normalize_key(key: str) -> str:
    """Return a key without case and separators: `disabled_tools` and `disabledTools` are one key."""
    return re.sub(r"[_\-. ]", "", key).lower()


def _is_switched_off(disabled: Any, foreign: Mapping[str, Any]) -> bool:
    """Return True if the user switched the server off."""
    is_disabled = _parse_flag("disabled", disabled)
    on = [_parse_flag(key, value) for key, value in foreign.items() if _normalize_key(key) in SWITCHES]
    return is_disabled or not all(on)


def _translate_foreign(foreign: Mapping[str, Any], given: dict[str, Any], notes: list[str]) -> None:
    """Add the meaning of other programs' keys to the given ones, and a note for each key that is not used."""
    has_allow = "allow" in given
    missed: list[str] = []
    unused: list[str] = []
    for key, value in foreign.items():
        plain = _normalize_key(key)
        is_comment = key.startswith(_COMMENT_MARKS)
        match _MEANINGS.get(plain, "unknown"):
            case "alias":
                _translate_alias(key, value, given, notes)
            case "deny":
                given["deny"] = (*_parse_strings("deny", given.get("deny", [])), *_parse_strings(key, value))
            case "allow" if has_allow:
                notes.append(f"{key[:KEY_CHARS]} is not used beside allow")
            case "allow":
                given["allow"] = (*given.get("allow", ()), *_parse_strings(key, value))
            case "missed" if not is_comment:
                missed.append(MISSED[plain])
            case "unknown" if not is_comment:
                _refuse_typing_error(key, plain)
                unused.append(key[:KEY_CHARS])
            case _:
                pass
    notes += missed
    _note_unused(unused, notes)


def _note_unused(keys: Sequence[str], notes: list[str]) -> None:
    match keys:
        case []:
            pass
        case [key]:
            notes.append(f"{key} is not used")
        case _:
            notes.append(f"{', '.join(keys)} are not used")


def _translate_alias(key: str, value: Any, given: dict[str, Any], notes: list[str]) -> None:
    plain = _normalize_key(key)
    own_key = ALIASES[plain]
    if not given.get(own_key):
        given[own_key] = value
    elif plain == "httpurl":
        notes.append(f"url is not used beside {key}")  # in Gemini CLI, url is the address of the old transport
        given["url"] = value
    else:
        notes.append(f"{key[:KEY_CHARS]} is not used beside {own_key}")


def _refuse_typing_error(key: str, plain: str) -> None:
    """Refuse a key that was meant as an own key: any rule, and one that is almost another own key."""
    near = [
        *get_close_matches(plain, RULES, n=1, cutoff=RULE_CUTOFF),
        *get_close_matches(plain, PLACES, n=1, cutoff=PLACE_CUTOFF),
    ]
    if near:
        raise WrongEntryError(f"there is no key {key[:KEY_CHARS]!r}: did you mean {near[0]!r}?")
    if _RULE_LIKE.search(plain):
        raise WrongEntryError(
            f"there is no key {key[:KEY_CHARS]!r}, which reads like a rule: use one of {', '.join(RULES)}."
        )


def _split_command(given: dict[str, Any]) -> None:
    """Split a command that includes its arguments: a list, or an object with a path."""
    match given.get("command"):
        case [program, *args]:
            given["command"] = program
            given["args"] = [*args, *_parse_args("args", given.get("args", []))]
        case {**parts}:
            given["command"] = parts.get("path", parts.get("command"))
            given |= {key: parts[key] for key in ("args", "env") if key in parts and key not in given}
        case _:
            pass


def _keep_command_or_url(given: dict[str, Any], notes: list[str]) -> None:
    """Keep either the command or the url, as the type says or as only one of them is filled in."""
    for key, other in (("command", "url"), ("url", "command")):
        if given.get(key) == "" and given.get(other):
            del given[key]
    if "type" in given:
        _apply_type(given.pop("type"), given, notes)
    if ("command" in given) == ("url" in given):
        raise WrongEntryError("it needs either a command or a url.")


def _apply_type(written: Any, given: dict[str, Any], notes: list[str]) -> None:
    """Delete the command or the url that does not belong to the type, if there are both."""
    kind = _parse_kind("type", written)
    used, unused = _KEYS_OF_KIND[kind]
    if unused not in given:
        return
    if used not in given:
        raise WrongEntryError(f"type {written!r} does not go with its {unused}.")
    del given[unused]
    notes.append(f"{unused} is not used, since its type is {kind}")


def _refuse_inputs(fields: Mapping[str, Any]) -> None:
    """Refuse a placeholder for which an editor asks its user."""
    for key, value in fields.items():
        found = _INPUT.search(json.dumps(value))
        if found:
            raise WrongEntryError(
                f"{key} names {found[0][:60]}, which only an editor can ask for: write ${{NAME}} in its place "
                "and set NAME in the environment of agent-jobs."
            )


def _parse_string(key: str, value: Any) -> str:
    if not _is_string(value) or not value.strip():
        raise WrongEntryError(f"{key} accepts a string.")
    return value


def _parse_strings(key: str, value: Any) -> Sequence[str]:
    if not isinstance(value, list | tuple) or not all(map(_is_string, cast("Sequence[Any]", value))):
        raise WrongEntryError(f"{key} accepts a list of strings.")
    return tuple(cast("Sequence[str]", value))


def _is_string(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and "\0" not in value


def _to_string(value: Any) -> Any:
    """Return a number or a flag as its JSON, and any other value as it is."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return value


def _parse_args(key: str, value: Any) -> Sequence[str]:
    if isinstance(value, list | tuple):
        value = [*map(_to_string, cast("Sequence[Any]", value))]
    return _parse_strings(key, value)


def _parse_pairs(key: str, value: Any) -> Mapping[str, str]:
    wrong = WrongEntryError(f'{key} accepts strings by name, like {{"API_TOKEN": "${{API_TOKEN}}"}}.')
    if not isinstance(value, dict):
        raise wrong
    given = cast("dict[str, Any]", value)
    pairs = {name: _to_string(each) for name, each in given.items() if each is not None or name == ""}
    if not all(map(_is_pair, pairs, pairs.values())):
        raise wrong
    return pairs


def _is_pair(name: str, text: Any) -> bool:
    return _is_string(text) and _VARIABLE_NAME.fullmatch(name) is not None


def _parse_headers(key: str, value: Any) -> Mapping[str, str]:
    pairs = _parse_pairs(key, value)
    if not all(map(_is_header, pairs, pairs.values())):
        raise WrongEntryError(f"{key} holds characters that a header cannot carry.")
    return pairs


def _is_header(name: str, value: str) -> bool:
    return _HEADER_NAME.fullmatch(name) is not None and value.isprintable()


def _parse_url(key: str, value: Any) -> str:
    address = _parse_string(key, value)
    if not address.startswith("${") and not _is_web_address(address):
        raise WrongEntryError(f"{key} accepts a web address like https://tools.example.org/mcp.")
    return address


def _is_web_address(address: str) -> bool:
    try:
        parts = urlsplit(VARIABLE.sub("8", address))  # a digit fits wherever a variable may stand, also in a port
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _parse_kind(key: str, value: Any) -> str:
    """Return `stdio` or `http`."""
    kind = _normalize_key(str(value))
    if kind == "sse":
        raise WrongEntryError("type sse is not supported: write the server's streamable HTTP address with type http.")
    if kind not in TRANSPORTS:
        raise WrongEntryError(f"{key} accepts stdio or http.")
    return TRANSPORTS[kind]


def _parse_flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongEntryError(f"{key} accepts true or false.")
    return value


def _parse_seconds(key: str, value: Any) -> float:
    if type(value) not in (int, float) or not 1 <= value <= 3600:
        raise WrongEntryError(f"{key} accepts seconds from 1 to 3600. The default is 60.")
    return float(value)


def _parse_approval(key: str, value: Any) -> Sequence[tuple[str, Approval]]:
    if getattr(value, "repeated", ()):
        raise WrongEntryError(f"{key} contains a tool more than once.")
    pairs: dict[str, Any] = {"*": value}
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value)
    if not all(approval in APPROVALS for approval in pairs.values()):
        raise WrongEntryError(
            f'{key} accepts {", ".join(APPROVALS)}, or one of them for each tool, like {{"git_*": "never"}}.'
        )
    return tuple(pairs.items())


KEYS: Mapping[str, Callable[[str, Any], Any]] = {
    "type": _parse_kind,
    "command": _parse_string,
    "args": _parse_args,
    "env": _parse_pairs,
    "cwd": _parse_string,
    "url": _parse_url,
    "headers": _parse_headers,
    "disabled": _parse_flag,
    "allow": _parse_strings,
    "deny": _parse_strings,
    "approval": _parse_approval,
    "timeout_s": _parse_seconds,
}
RULES = ("allow", "deny", "approval", "disabled")  # keys for what may run
PLACES = ("command", "args", "env", "cwd", "url", "headers")  # keys for what is run and where
#: The values that a form writes for an empty field, by its key. In a rule such a value is a mistake.
_BLANKS: Mapping[str, Sequence[Any]] = {
    **dict.fromkeys(("type", "args", "env", "cwd", "url", "headers"), (None, "", [], {})),
    "command": (None,),
    "timeout_s": (None,),
    **dict.fromkeys(RULES, ()),
}
