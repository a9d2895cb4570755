"""Find the parameters that agent-jobs added to a request, and those of them that an endpoint refuses. Pure."""

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any, cast

from agent_jobs.jobs.response import JSON, drop_fields, mapping_of
from agent_jobs.request.hosted_tools import INCLUDED

#: Under this name a stored request lists the parameters that its caller set; it is never sent.
ASKED = "_asked"
#: Each added parameter, by its path in the body, with the name under which a caller may set it.
ADDED: Mapping[str, str] = {
    "stream_options": "",
    "metadata": "metadata",
    "include": "include",
    "store": "",
    "reasoning.summary": "reasoning_summary",
    "reasoning.effort": "effort",
    "text.verbosity": "verbosity",
    "text.format.strict": "json_schema",
}
#: Parameters that one model accepts and another does not, at the same endpoint.
OF_A_MODEL = frozenset({"reasoning.summary", "reasoning.effort", "text.verbosity"})
#: Limits that a budget adds. They cannot be left out without the budget.
OF_A_BUDGET: Mapping[str, str] = {"max_output_tokens": "max_output_tokens", "max_tool_calls": "max_tool_calls"}
#: Follow-ups that send the whole history ask for it, so that reasoning can be sent again.
ENCRYPTED = "reasoning.encrypted_content"
#: In place of a parameter: the endpoint refused one schema that we chose to send as strict.
THIS_SCHEMA = "strict, for this schema"
#: In place of a parameter: the endpoint does not know `store`, which is not the same as wanting false.
NO_STORE = "no store"
STRICT = "text.format.strict"

#: Other ways in which servers write our paths.
ALIASES: Mapping[str, str] = {
    "stream options": "stream_options",
    "reasoning_effort": "reasoning.effort",
    "reasoning effort": "reasoning.effort",
    "reasoning_summary": "reasoning.summary",
    "reasoning summary": "reasoning.summary",
    "reasoning summaries": "reasoning.summary",
    "verbosity": "text.verbosity",
    "strict": "text.format.strict",
}
_NAMES = "|".join(
    re.escape(path)
    for path in sorted({*ADDED, *ALIASES, *OF_A_BUDGET, "reasoning", "text.format", "text"}, key=len, reverse=True)
)
#: One of our paths, with the keys below it.
_NAME = rf"(?P<name>{_NAMES})(?P<below>(?:\.\w+|\[\w+\])*)(?!\w|\.\w|\[\w)"
_QUOTE = r"['\"`‘“«]"
_NOUN = r"(?:parameter|param|argument|field|property|propertie|key|option|name|value|input|attribute)(?:\(s\)|s)?"
#: Words before a list of refused names.
_BEFORE = re.compile(
    rf"(?:unknown|unsupported|unrecogni[sz]ed|unexpected|invalid|extra|disallowed|illegal|forbidden|not allowed)"
    rf"(?: (?:request|body|keyword|query|top-level))* {_NOUN}(?: in (?:the )?(?:object|request|body|request body))?"
    r"(?: (?:supplied|provided|given|found|received|passed))?"
    rf"|(?:does not|doesn't|do not|don't|cannot|can't) (?:currently )?(?:support|accept|allow|take|recogni[sz]e)"
    rf"(?: the)?(?: {_NOUN})?"
    r"|must be verified to (?:generate|use)|unsupportedparamserror"
    r"|additional properties are not (?:allowed|permitted)|unrecogni[sz]ed_keys|additionalproperty"
)
#: One name of such a list.
_LISTED = re.compile(rf"(?<![\w.]){_NAME}(?=$|{_QUOTE}|[.,:)\]}}]| (?:and|or|is|are|was|were|not)\b)")
_EXTRA = re.compile(rf"(?<![\w.]){_NAME} extra (?:inputs|fields)")
#: The end of the list: words for what is allowed instead, or another sentence.
_END = re.compile(
    r"[.;](?:\s|$)|\bexpected\b|\bsupported (?:values|parameters)|\ballowed\b|\bvalid\b|\bfor model\b|\bto drop\b"
)
#: A name with its refusal behind it.
_BEHIND = re.compile(
    rf"(?:^|{_QUOTE}|[:,;(\[{{] ?|\b(?:parameter|param|argument|field|property|option) ){_NAME}{_QUOTE}?"
    rf"(?: ?{_NOUN})?:?"
    r"(?:=\w+)? (?:is |are |was |were |has been |may |must |can |should )?(?:currently )?"
    r"(?:not |n't |unsupported|unknown|unrecogni[sz]ed|unexpected|disabled|forbidden|invalid|only (?:allowed|supported)"
    r"|be (?:set to )?false|extra (?:inputs|fields)|requires? )"
)
_WANTS_FALSE = re.compile(
    r"store ?[=:] ?true\b|store\W{0,3}(?: parameter)?\W*(?: (?:must|has to|needs to|should|to)\b.{0,20})?\W{0,3}false"
)
_LOCATION = re.compile(r"['\"]loc['\"]: ?[\[(]([^\])]*)")
_SCHEMA = re.compile(r"invalid_json_schema|invalid_function_parameters|text\.format\.schema|invalid schema for ")


def list_asked_names(options: JSON, *, effort: bool) -> list[str]:
    """Return the parameters that a caller set, by their names in `ADDED`: each include, a schema if it sets strict."""
    ordinary = drop_fields(options, "include", "json_schema")
    names = [name for name, value in ordinary.items() if value is not None]
    match options:
        case {"include": [*included]}:
            names += [f"include:{value}" for value in included]
        case _:
            pass
    schema = options.get("json_schema")
    if isinstance(schema, str) or "'strict'" in repr(schema):
        names.append("json_schema")
    if effort:
        names.append("effort")
    return names


def is_from_caller(body: JSON, name: str) -> bool:
    """Return True if the caller set it; for a request without that list, if it is an ordinary option."""
    if ASKED in body:
        return name in body[ASKED]
    if name == "metadata":
        return set(body.get("metadata", ())) != {"job_id"}
    return name not in ("", "include")


def find_refused_additions(code: str, param: str, words: str, body: JSON) -> list[str]:
    """Return what we added to a body and a refusal names, as `ADDED` has it; `store` or `NO_STORE` for that."""
    said = _fold_words(words)
    found = _find_added(param, said, body)
    if _SCHEMA.search(f"{code} {param} {said}"):
        found = _blame_schema(found, body)
    if _WANTS_FALSE.search(said) is None:
        return [{"store": NO_STORE}.get(path, path) for path in found]
    if "store" not in found and is_added(body, "store"):
        found.append("store")
    return found


def _blame_schema(found: list[str], body: JSON) -> list[str]:
    """Return the refused parameters with the schema in place of strictness, if we chose to send one as strict."""
    if relax_schemas(body) == body:
        return found
    return [*(path for path in found if path != STRICT), THIS_SCHEMA]


def find_refused_budget_limit(param: str, words: str, body: JSON) -> str | None:
    """Return the limit that only a budget added and a refusal names; None if there is none."""
    named = body.keys() & _find_refused_names(param.lower(), _fold_words(words), body)
    return next((each for each in OF_A_BUDGET if each in named and not is_from_caller(body, each)), None)


def is_added(body: JSON, path: str) -> bool:
    """Return True if a body has it and no part of it is from the caller."""
    if path == "include":
        return bool(_our_includes(body))
    place: Any = body
    for step in path.split("."):
        place = mapping_of(place).get(step)
    return bool(place) and not is_from_caller(body, ADDED[path])


def remove_refused(body: JSON, refused: Collection[str]) -> JSON:
    """Return the body without those of the refused parameters that only we added."""
    kept: dict[str, Any] = drop_fields(body, ASKED)
    for path in sorted((ADDED.keys() & refused) - {"store"}):
        if is_added(body, path):
            kept = _drop_added(kept, path, body)
    if "store" in refused:
        kept["store"] = False
    elif NO_STORE in refused:
        kept.pop("store", None)
    return _drop_empty_groups(kept)


def _drop_empty_groups(body: JSON) -> JSON:
    return {name: value for name, value in body.items() if value or name not in ("include", "reasoning", "text")}


def relax_schemas(body: JSON) -> JSON:
    """Return the body without the strictness that we chose for schemas: the answer's, and those of the toolbox."""
    changed: dict[str, Any] = {}
    if is_added(body, STRICT):
        changed["text"] = _drop_path(body["text"], "format.strict")
    if not is_from_caller(body, "tools") and body.get("tools"):
        changed["tools"] = [_without_strict(tool) for tool in body["tools"]]
    return {**body, **changed}


def _without_strict(tool: JSON) -> JSON:
    """Return a tool that is not strict."""
    if not tool.get("strict"):
        return tool
    return {**tool, "strict": False}


def _drop_added(kept: JSON, path: str, body: JSON) -> dict[str, Any]:
    """Return what is kept of a body without one more parameter, of `include` only without our values."""
    if path != "include":
        return _drop_path(kept, path)
    ours = _our_includes(body)
    return {**kept, "include": [value for value in body["include"] if value not in ours]}


def _drop_path(facts: JSON, path: str) -> dict[str, Any]:
    """Return a copy of an object without the field at a path, such as `reasoning.effort`."""
    name, _, below = path.partition(".")
    if not below:
        return drop_fields(facts, name)
    return {**facts, name: _drop_path(facts[name], below)}


def _our_includes(body: JSON) -> list[str]:
    ours = {*INCLUDED.values(), ENCRYPTED}
    asked = cast("list[str]", body.get(ASKED, []))
    given = cast("list[str]", body.get("include", []))
    return [value for value in given if value in ours and f"include:{value}" not in asked]


def _fold_words(words: str) -> str:
    return " ".join(words.lower().split())


def _find_added(param: str, said: str, body: JSON) -> list[str]:
    """Return the parameters that we added and a refusal names."""
    named = set(_find_refused_names(param.lower(), said, body))
    return [path for path in ADDED if is_added(body, path) and any(_is_covered(path, name) for name in named)]


def _is_covered(path: str, name: str) -> bool:
    """Return True if a name that was refused is this path, one above it, or one below it."""
    return name == path or path.startswith(f"{name}.") or name.startswith((f"{path}.", f"{path}["))


def _find_refused_names(param: str, words: str, body: JSON) -> Iterator[str]:
    """Yield the paths that a refusal names: in its param, in FastAPI's locations, or in its words."""
    root = re.split(r"[.\[]", param)[0]
    if param and root in body:
        yield param
        return
    locations = _LOCATION.findall(words)
    if locations:
        yield from map(_path_of_location, locations)
        return
    yield from _find_listed_names(words)
    yield from map(_path_of_match, chain(_BEHIND.finditer(words), _EXTRA.finditer(words)))


def _find_listed_names(words: str) -> Iterator[str]:
    """Yield the paths after words of refusal, up to the end of their list."""
    for trigger in _BEFORE.finditer(words):
        end = _END.search(words, trigger.end())
        limit = end.start() if end else len(words)
        yield from map(_path_of_match, _LISTED.finditer(words, trigger.end(), limit))


def _path_of_location(steps: str) -> str:
    return ".".join(re.findall(r"\w+", steps)).removeprefix("body.")


def _path_of_match(found: "re.Match[str]") -> str:
    return ALIASES.get(found["name"], found["name"]) + found["below"]
