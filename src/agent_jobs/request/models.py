"""What models take and which are gone, as data/models.toml says. Pure, but for reading that file once."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any, cast

from agent_jobs.errors import RequestError
from agent_jobs.jobs.response import JSON
from agent_jobs.text import nearest

#: Where lists of models stand, and the names in them.
LIST_FIELDS = ("data", "models", "items", "results")
NAME_FIELDS = ("id", "name", "model", "slug")

#: Names of different models are much alike, and other endpoints have models of their own.
MODEL_CUTOFF = 0.75
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@cache
def models() -> Mapping[str, Any]:
    """What data/models.toml says."""
    import tomllib  # not needed to answer `initialize`

    return tomllib.loads(resources.files("agent_jobs").joinpath("data", "models.toml").read_text("utf-8"))


def check_model(model: str, effort: str | None = None, sampling: Iterable[str] = ()) -> None:
    """Refuse what OpenAI is known to refuse; a model that is in no table passes.

    Args:
        model: A name of OpenAI's. On another endpoint a name may mean anything.
        effort: The effort that is asked for.
        sampling: Which of `temperature` and `top_p` are asked for.

    Raises:
        RequestError: The model was shut down, or does not take what is asked of it.
    """
    gone = _row("retired", model)
    if gone is not None and gone["on"] <= models()["as_of"]:
        raise RequestError(f"{model} was shut down on {gone['on']}: {_instead(gone)}.")
    family = _row("family", model)
    if family is None:
        return
    if effort is not None and effort not in family["efforts"]:
        raise RequestError(f"effort {effort!r} is refused by {model}: use one of {', '.join(family['efforts'])}.")
    for name in sampling:
        if effort not in family["sampling"]:
            only = f" without effort {family['sampling'][0]!r}" if family["sampling"] else ""
            raise RequestError(f"options.{name} is refused by {model}{only}: leave it out.")


def obituary(model: str) -> str:
    """What became of a model that upstream does not know (any more); empty when that is not known here."""
    gone = _row("retired", model)
    return f"{model} was to be shut down on {gone['on']}: {_instead(gone)}." if gone else ""


def suggest_model(model: str) -> str:
    """Return a question for the known model that a name of none was probably meant to be, or nothing."""
    known = [name for family in models()["family"] for name in family["names"]]
    near = None if model in known else nearest(model, known, MODEL_CUTOFF)
    return f"Did you mean {near!r}?" if near is not None else ""


def listed_models(pages: Iterable[object]) -> dict[str, JSON]:
    """Return what a list of models says of each, by name, whatever form its pages have.

    Names stand below `data` or `models` or in a bare list, as texts, as keys, or in objects.
    """
    found: dict[str, JSON] = {}
    for page in pages:
        for entry in _entries(page):
            if isinstance(entry, str):
                found.setdefault(entry, {})
            elif isinstance(entry, dict):
                card = cast(JSON, entry)
                name = next((card[field] for field in NAME_FIELDS if isinstance(card.get(field), str)), "")
                if name:
                    found.setdefault(name, card)
    return found


def find_listed(name: str, listed: Iterable[str]) -> str | None:
    """Return the listed name that means this model: itself, as a resource, with a default tag, or by a pattern."""
    names = list(listed)
    same = next((each for each in (name, f"models/{name}", f"{name}:latest") if each in names), None)
    return same or next((each for each in names if "*" in each and fnmatchcase(name, each)), None)


def near_models(name: str, listed: Iterable[str], most: int = 3) -> list[str]:
    """Return the listed names that are most like this one: first those that differ by a prefix or in case."""
    names = [each for each in listed if "*" not in each]
    same = [each for each in names if _last_part(each) == _last_part(name)]
    from difflib import get_close_matches  # only for mistakes

    by_part: dict[str, list[str]] = {}
    for each in names:
        by_part.setdefault(_last_part(each), []).append(each)
    near = get_close_matches(_last_part(name), by_part, n=most, cutoff=0.5)
    return list(dict.fromkeys([*same, *(each for part in near for each in by_part[part])]))[:most]


def _last_part(name: str) -> str:
    """Return a name without what gateways put before it."""
    return name.rpartition("/")[2].casefold()


def _entries(page: object) -> list[object]:
    """Return the models on a page, each as a text or an object."""
    if isinstance(page, list):
        return cast("list[object]", page)
    if not isinstance(page, dict):
        return []
    body = cast(JSON, page)
    inner = next((body[field] for field in LIST_FIELDS if isinstance(body.get(field), list | dict)), None)
    if isinstance(inner, dict):
        keyed = cast(JSON, inner)
        return _entries(keyed) or [{"id": name, **_mapping(card)} for name, card in keyed.items()]
    return _entries(inner)


def _mapping(value: object) -> JSON:
    return cast(JSON, value) if isinstance(value, dict) else {}


def _row(table: str, model: str) -> Mapping[str, Any] | None:
    for name in (model, _SNAPSHOT.sub("", model)):
        for row in models()[table]:
            if name in row["names"]:
                return row
    return None


def _instead(gone: Mapping[str, Any]) -> str:
    return f"use {gone['use']}" + (f" with {gone['with']}" if "with" in gone else "")
