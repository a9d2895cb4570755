"""One server's entry in the user's file: our own keys checked, those of other programs translated or passed over. Pure.

A host's file may be used as it is, so what another program reads there stops nothing. A key that could be a rule with a
typing error is refused: passed over, it would let more run than the user wrote.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

Approval = Literal["ask", "always", "never"]
APPROVALS: tuple[str, ...] = get_args(Approval)

#: How programs call the two ways to speak with a server, here and below written as `_plain` writes it.
STDIO = frozenset({"stdio", "local"})
HTTP = frozenset({"http", "streamablehttp", "remote"})

#: Keys of other programs by what they mean here.
ALIASES = {
    "serverurl": "url",
    "httpurl": "url",
    "environment": "env",
    "httpheaders": "headers",
    "workingdirectory": "cwd",
    "transport": "type",
    "transporttype": "type",
}
#: Switches that are off at `false`.
SWITCHES = frozenset({"enabled", "isenabled", "active", "isactive"})
#: Lists of tools that another program may not use, or may use alone.
DENIES = frozenset({"disabledtools", "excludetools", "excludedtools"})
ALLOWS = frozenset({"enabledtools", "includetools", "includedtools", "tools"})
#: Keys that change nothing about what a server does or may do here.
INERT = frozenset(
    {
        *("autoapprove", "alwaysallow", "trust", "description", "name", "title", "displayname", "id", "version"),
        *("icon", "iconurl", "logo", "homepage", "documentation", "category", "tags", "note", "notes", "comment"),
        *("gallery", "source", "registry", "provider", "dev", "watch", "watchpaths"),
    }
)
#: Keys that may be missed, and what to do instead.
MISSED = {
    "timeout": "timeout is not used, since hosts disagree on its unit: write timeout_s",
    "envfile": "envFile is not read: write its variables into env",
    "oauth": "oauth is not used, since no job can sign in: write a token into headers",
    "auth": "auth is not used, since no job can sign in: write a token into headers",
}

_RULE_LIKE = re.compile(
    "allow|deny|denie|approv|permi|block|forbid|restrict|exclu|inclu|confirm|readonly|disabl|enabl|filter|policy|tools?$"
)
_NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9@ ._/-]{0,39}")
_INPUT = re.compile(r"\$\{input:[^}]*\}")
VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class WrongEntryError(Exception):
    """What is wrong with an entry, as the rest of a sentence."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What an entry says: the fields of its configuration, and what of it is not used; off without fields."""

    fields: Mapping[str, Any] | None
    notes: Sequence[str] = ()


def read_entry(name: str, written: Any) -> Entry:
    """Read the entry of a server.

    Raises:
        WrongEntryError: It cannot be used.
    """
    if not _NAME.fullmatch(name) or name == "none":
        raise WrongEntryError("a server's name takes up to 40 letters, digits, spaces, @ . _ / and -, and is not none.")
    if not isinstance(written, dict):
        raise WrongEntryError('a server is an object like {"command": "uvx", "args": ["mcp-server-time"]}.')
    entry = cast("dict[str, Any]", written)
    notes: list[str] = []
    given = {key: value for key, value in entry.items() if key in KEYS and not _is_blank(key, value)}
    foreign = {key: value for key, value in entry.items() if key not in KEYS and value is not None}
    if _is_switched_off(given, foreign):
        return Entry(None)
    for key in getattr(entry, "repeated", ()):
        if key in RULES or _normalize_key(key) in DENIES | ALLOWS:
            raise WrongEntryError(f"{key} stands there more than once.")
    _translate_foreign(foreign, given, notes)
    _split_command(given)
    _choose_transport(given, notes)
    fields = {key: KEYS[key](key, value) for key, value in given.items()}
    for key in ("disabled", "type"):
        fields.pop(key, None)
    _refuse_inputs(fields)
    return Entry(fields, notes)


def _normalize_key(key: str) -> str:
    """Return a key as all programs could have written it: `disabled_tools` and `disabledTools` are one."""
    return re.sub(r"[_\-. ]", "", key).lower()


def _is_blank(key: str, value: Any) -> bool:
    """Return True for what forms write where nothing was filled in; a rule without a value is a mistake."""
    return key not in RULES and (value is None or (key not in ("command", "timeout_s") and value in ("", [], {})))


def _is_switched_off(given: Mapping[str, Any], foreign: Mapping[str, Any]) -> bool:
    """Return True if the user switched the server off."""
    off = [_parse_flag(key, value) for key, value in given.items() if key == "disabled"]
    on = [_parse_flag(key, value) for key, value in foreign.items() if _normalize_key(key) in SWITCHES]
    return any(off) or not all(on)


def _translate_foreign(foreign: Mapping[str, Any], given: dict[str, Any], notes: list[str]) -> None:
    """Add what the keys of other programs mean to the given ones; note what is not used."""
    own_allow = "allow" in given
    unused: list[str] = []
    for key, value in foreign.items():
        plain = _normalize_key(key)
        if plain in ALIASES:
            if plain == "httpurl" and given.get("url"):
                notes.append(f"url is not used beside {key}")  # for Gemini CLI a url is one of the old transport
                given["url"] = value
            elif given.get(ALIASES[plain]):
                notes.append(f"{key[:40]} is not used beside {ALIASES[plain]}")
            else:
                given[ALIASES[plain]] = value
        elif plain in DENIES:
            given["deny"] = (*_parse_strings("deny", given.get("deny", [])), *_parse_strings(key, value))
        elif plain in ALLOWS and own_allow:
            notes.append(f"{key[:40]} is not used beside allow")
        elif plain in ALLOWS:
            given["allow"] = (*given.get("allow", ()), *_parse_strings(key, value))
        elif plain not in SWITCHES | INERT and not key.startswith(("$", "_", "/", "#", "x-")):
            _refuse_typing_error(key, plain)
            if plain in MISSED:
                notes.append(MISSED[plain])
            else:
                unused.append(key[:40])
    if unused:
        notes.append(f"{', '.join(unused)} {'is' if len(unused) == 1 else 'are'} not used")


def _refuse_typing_error(key: str, plain: str) -> None:
    """Refuse a key that is meant for us: a rule however it is called, or nearly one of the others."""
    near = get_close_matches(plain, RULES, n=1, cutoff=0.7) or get_close_matches(plain, PLACES, n=1, cutoff=0.8)
    if near:
        raise WrongEntryError(f"there is no key {key[:40]!r}: did you mean {near[0]!r}?")
    if _RULE_LIKE.search(plain):
        raise WrongEntryError(f"there is no key {key[:40]!r}, which reads like a rule: use one of {', '.join(RULES)}.")


def _split_command(given: dict[str, Any]) -> None:
    """Part a command that holds its arguments: a list, or an object with a path."""
    command = given.get("command")
    if isinstance(command, list) and command:
        given["command"], *args = cast("list[Any]", command)
        given["args"] = [*args, *_parse_args("args", given.get("args", []))]
    elif isinstance(command, dict):
        parts = cast("dict[str, Any]", command)
        given["command"] = parts.get("path", parts.get("command"))
        given |= {key: parts[key] for key in ("args", "env") if key in parts and key not in given}


def _choose_transport(given: dict[str, Any], notes: list[str]) -> None:
    """Leave either a command or a url, as its type says or as there is only one."""
    for key, other in (("command", "url"), ("url", "command")):
        if given.get(key) == "" and given.get(other):
            del given[key]
    kind = _parse_kind("type", given["type"]) if "type" in given else None
    if kind is not None and "command" in given and "url" in given:
        unused = "url" if kind == "stdio" else "command"
        del given[unused]
        notes.append(f"{unused} is not used, since its type is {kind}")
    if ("command" in given) == ("url" in given):
        raise WrongEntryError("it needs either a command or a url.")
    if kind is not None and (kind == "stdio") != ("command" in given):
        written = given["type"]
        raise WrongEntryError(f"type {written!r} does not go with its {'command' if 'command' in given else 'url'}.")


def _refuse_inputs(fields: Mapping[str, Any]) -> None:
    """Refuse a placeholder that an editor fills in by asking its user."""
    for key, value in fields.items():
        found = _INPUT.search(json.dumps(value))
        if found:
            raise WrongEntryError(
                f"{key} names {found[0][:60]}, which only an editor asks for: write ${{NAME}} in its place "
                "and put NAME into the env of agent-jobs' own entry."
            )


def _parse_string(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise WrongEntryError(f"{key} takes a text.")
    return value


def _parse_strings(key: str, value: Any) -> Sequence[str]:
    each = cast("Sequence[Any]", value) if isinstance(value, list | tuple) else None
    if each is None or not all(isinstance(item, str) and "\0" not in item for item in each):
        raise WrongEntryError(f"{key} takes a list of texts.")
    return tuple(each)


def _to_string(value: Any) -> Any:
    """Return a number or a flag as the text that it is in JSON, and all else as it is."""
    return json.dumps(value) if isinstance(value, bool | int | float) else value


def _parse_args(key: str, value: Any) -> Sequence[str]:
    return _parse_strings(
        key, [*map(_to_string, cast("Sequence[Any]", value))] if isinstance(value, list | tuple) else value
    )


def _parse_pairs(key: str, value: Any) -> Mapping[str, str]:
    given = cast("dict[str, Any]", value) if isinstance(value, dict) else {"": None}
    pairs = {name: _to_string(each) for name, each in given.items() if each is not None or name == ""}
    if not all(_is_pair(name, text) for name, text in pairs.items()):
        raise WrongEntryError(f'{key} takes texts by name, like {{"API_TOKEN": "${{API_TOKEN}}"}}.')
    return pairs


def _is_pair(name: str, text: Any) -> bool:
    return isinstance(text, str) and "\0" not in name + text and name != "" and "=" not in name


def _parse_headers(key: str, value: Any) -> Mapping[str, str]:
    pairs = _parse_pairs(key, value)
    if not all(
        re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) and text.isprintable() for name, text in pairs.items()
    ):
        raise WrongEntryError(f"{key} holds what no header can carry.")
    return pairs


def _parse_url(key: str, value: Any) -> str:
    address = _parse_string(key, value)
    try:
        parts = urlsplit(VARIABLE.sub("8", address))  # whatever the variable brings, a port included
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits and not address.startswith("${"):
        raise WrongEntryError(f"{key} takes a web address like https://tools.example.org/mcp.")
    return address


def _parse_kind(key: str, value: Any) -> str:
    """Return `stdio` or `http`."""
    kind = _normalize_key(value) if isinstance(value, str) else ""
    if kind == "sse":
        raise WrongEntryError("type sse is of the past: write the server's streamable HTTP address with type http.")
    if kind not in STDIO | HTTP:
        raise WrongEntryError(f"{key} takes stdio or http.")
    return "stdio" if kind in STDIO else "http"


def _parse_flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongEntryError(f"{key} takes true or false.")
    return value


def _parse_seconds(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 3600:
        raise WrongEntryError(f"{key} takes seconds from 1 to 3600; without it 60 are used.")
    return float(value)


def _parse_approval(key: str, value: Any) -> Sequence[tuple[str, Approval]]:
    if getattr(value, "repeated", ()):
        raise WrongEntryError(f"{key} holds a tool more than once.")
    pairs = cast("dict[str, Any]", value if isinstance(value, dict) else {"*": value})
    if not all(approval in APPROVALS for approval in pairs.values()):
        raise WrongEntryError(
            f'{key} takes {", ".join(APPROVALS)}, or one of them for each tool, like {{"git_*": "never"}}.'
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
#: Keys that say what may run, and keys that say what is run.
RULES = ("allow", "deny", "approval", "disabled")
PLACES = ("command", "args", "env", "cwd", "url", "headers")
