"""What we add to a request that its caller did not ask for, and what of it an endpoint refuses. Pure."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

from agent_jobs.jobs.response import JSON
from agent_jobs.request.hosted_tools import INCLUDED

#: Where a kept request says what its caller asked for; it is never sent.
ASKED = "_asked"
#: What we add, by the path in the body, and the name under which the caller may have asked for it.
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
#: What one model takes and another does not, at the same endpoint.
OF_A_MODEL = frozenset({"reasoning.summary", "reasoning.effort", "text.verbosity"})
#: Limits that a budget adds. They cannot be left out without the budget.
OF_A_BUDGET: Mapping[str, str] = {"max_output_tokens": "max_output_tokens", "max_tool_calls": "max_tool_calls"}
#: What follow-ups with all that was said ask for, so that reasoning can be told again.
ENCRYPTED = "reasoning.encrypted_content"
#: What is refused is a schema that we chose to send as strict, and not a parameter.
THIS_SCHEMA = "strict, for this schema"
#: How it is remembered that an endpoint does not know `store`, and not that it wants false.
NO_STORE = "no store"

#: How else servers write our paths.
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
#: One of our paths, with what stands below it.
_NAME = rf"(?P<name>{_NAMES})(?P<below>(?:\.\w+|\[\w+\])*)(?!\w|\.\w|\[\w)"
_QUOTE = r"['\"`‘“«]"
_NOUN = r"(?:parameter|param|argument|field|property|propertie|key|option|name|value|input|attribute)(?:\(s\)|s)?"
#: Words after which names follow that are refused.
_BEFORE = re.compile(
    rf"(?:unknown|unsupported|unrecogni[sz]ed|unexpected|invalid|extra|disallowed|illegal|forbidden|not allowed)"
    rf"(?: (?:request|body|keyword|query|top-level))* {_NOUN}(?: in (?:the )?(?:object|request|body|request body))?"
    r"(?: (?:supplied|provided|given|found|received|passed))?"
    rf"|(?:does not|doesn't|do not|don't|cannot|can't) (?:currently )?(?:support|accept|allow|take|recogni[sz]e)"
    rf"(?: the)?(?: {_NOUN})?"
    r"|must be verified to (?:generate|use)|unsupportedparamserror"
    r"|additional properties are not (?:allowed|permitted)|unrecogni[sz]ed_keys|additionalproperty"
)
#: One of the names in such a list.
_LISTED = re.compile(rf"(?<![\w.]){_NAME}(?=$|{_QUOTE}|[.,:)\]}}]| (?:and|or|is|are|was|were|not)\b)")
_EXTRA = re.compile(rf"(?<![\w.]){_NAME} extra (?:inputs|fields)")
#: Where the names end: what is allowed instead, or another sentence.
_END = re.compile(
    r"[.;](?:\s|$)|\bexpected\b|\bsupported (?:values|parameters)|\ballowed\b|\bvalid\b|\bfor model\b|\bto drop\b"
)
#: A name, and what is said of it behind it.
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


def asked_names(options: JSON, *, effort: bool) -> list[str]:
    """Return what a caller asked for, as `ADDED` names it: includes by their values, a schema if it says how strict."""
    names = [name for name, value in options.items() if value is not None and name not in ("include", "json_schema")]
    included = options.get("include")
    values = cast("list[Any]", included) if isinstance(included, list) else []
    schema = options.get("json_schema")
    strict = ["json_schema"] if isinstance(schema, str) or "'strict'" in repr(schema) else []
    return [*names, *(f"include:{value}" for value in values), *strict, *(["effort"] if effort else [])]


def is_asked(body: JSON, name: str) -> bool:
    """Return True if the caller asked for it; of a request that does not say so, if it is an ordinary option."""
    if ASKED not in body:
        return name not in ("", "include") and (name != "metadata" or set(body.get("metadata") or ()) != {"job_id"})
    return name in body[ASKED]


def refused_of(code: str, param: str, words: str, body: JSON) -> list[str]:
    """Return what we added to a body and a refusal names, as `ADDED` has it; `store` or `NO_STORE` for that."""
    said = " ".join(words.lower().split())
    named = {*_named(param.lower(), said, body)}
    found = [path for path in ADDED if is_added(body, path) and any(_covers(name, path) for name in named)]
    if _SCHEMA.search(f"{code} {param} {said}") and lenient(body) != body:
        found = [*(path for path in found if path != "text.format.strict"), THIS_SCHEMA]
    wants_false = _WANTS_FALSE.search(said) is not None
    if wants_false and "store" not in found and is_added(body, "store"):
        found.append("store")
    return [NO_STORE if path == "store" and not wants_false else path for path in dict.fromkeys(found)]


def budget_limit_of(param: str, words: str, body: JSON) -> str | None:
    """Return the limit that only a budget added and a refusal names; None if there is none."""
    if ASKED not in body:
        return None
    named = {*_named(param.lower(), " ".join(words.lower().split()), body)}
    return next((each for each in OF_A_BUDGET if each in named and each in body and not is_asked(body, each)), None)


def is_added(body: JSON, path: str) -> bool:
    """Return True if it stands in a body and nothing of it comes from the caller."""
    if path == "include":
        return bool(_our_includes(body))
    *above, last = path.split(".")
    place: Any = body
    for step in above:
        place = cast(JSON, place).get(step) if isinstance(place, Mapping) else None
    there = isinstance(place, Mapping) and bool(cast(JSON, place).get(last))
    return there and not (ADDED[path] and is_asked(body, ADDED[path]))


def without(body: JSON, refused: Collection[str]) -> JSON:
    """Return the body without what only we added of what is refused."""
    kept = {name: value for name, value in body.items() if name != ASKED}
    for path in (path for path in ADDED if path in refused and path != "store" and is_added(body, path)):
        if path == "include":
            left = [value for value in body["include"] if value not in _our_includes(body)]
            kept |= {"include": left}
        elif path == "text.format.strict":
            kept = {**kept, **_without_own_strict(kept)}
        elif "." in path:
            group, _, name = path.partition(".")
            kept[group] = {each: value for each, value in cast(JSON, kept[group]).items() if each != name}
        else:
            del kept[path]
    if "store" in refused:
        kept["store"] = False
    elif NO_STORE in refused:
        kept.pop("store", None)
    empty = [name for name in ("include", "reasoning", "text") if name in kept and not kept[name]]
    return {name: value for name, value in kept.items() if name not in empty}


def lenient(body: JSON) -> JSON:
    """Return the body without the strictness that we chose for schemas: the answer's, and those of the toolbox."""
    changed: JSON = _without_own_strict(body) if is_added(body, "text.format.strict") else dict[str, Any]()
    if not is_asked(body, "tools") and ASKED in body:
        tools = cast("list[JSON]", body.get("tools") or [])
        strict = any(tool.get("strict") for tool in tools)
        loose = [{**tool, "strict": False} if tool.get("strict") else tool for tool in tools]
        changed = {**changed, **({"tools": loose} if strict else {})}
    return {**body, **changed}


def _without_own_strict(body: JSON) -> JSON:
    text = cast(JSON, body["text"])
    form = {name: value for name, value in cast(JSON, text["format"]).items() if name != "strict"}
    return {"text": {**text, "format": form}}


def _our_includes(body: JSON) -> list[str]:
    ours = {*INCLUDED.values(), ENCRYPTED}
    asked = cast("list[str]", body.get(ASKED) or [])
    given = cast("list[str]", body.get("include") or [])
    return [value for value in given if value in ours and f"include:{value}" not in asked]


def _covers(name: str, path: str) -> bool:
    """Return True if a name that was refused is this path, one above it, or one below it."""
    return name == path or path.startswith(f"{name}.") or name.startswith((f"{path}.", f"{path}["))


def _named(param: str, words: str, body: JSON) -> Iterator[str]:
    """Return the paths that a refusal names: in its param, in FastAPI's locations, or in its words."""
    root = re.split(r"[.\[]", param)[0]
    if param and root in body:
        yield param
        return
    if locations := [re.findall(r"[\w]+", each) for each in _LOCATION.findall(words)]:
        yield from (".".join(each[1:] if each[:1] == ["body"] else each) for each in locations)
        return
    for trigger in _BEFORE.finditer(words):
        end = _END.search(words, trigger.end())
        for found in _LISTED.finditer(words, trigger.end(), end.start() if end else len(words)):
            yield _path(found)
    yield from (_path(found) for pattern in (_BEHIND, _EXTRA) for found in pattern.finditer(words))


def _path(found: "re.Match[str]") -> str:
    return ALIASES.get(found["name"], found["name"]) + found["below"]
