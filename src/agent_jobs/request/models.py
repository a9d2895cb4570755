"""Look up models in data/models.toml, and in the lists of endpoints. Pure, except for reading that file once."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from itertools import chain
from typing import Any

from agent_jobs.errors import Argument, RequestError
from agent_jobs.jobs.response import JSON, mapping_of, string_of
from agent_jobs.text import ask_if_meant

LIST_FIELDS = ("data", "models", "items", "results")  # endpoints put their list of models below one of these
NAME_FIELDS = ("id", "name", "model", "slug")  # and the name of each below one of these
MODEL_CUTOFF = 0.75  # names of different models are much alike, and other endpoints have models of their own
LISTED_CUTOFF = 0.5  # the user chooses among several, so that a far one does no harm
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@cache
def load_models() -> Mapping[str, Any]:
    """Return data/models.toml."""
    import tomllib  # not needed to answer `initialize`

    return tomllib.loads(resources.files("agent_jobs").joinpath("data", "models.toml").read_text("utf-8"))


def check_model(model: str, effort: str | None = None, sampling: Iterable[str] = ()) -> None:
    """Refuse parameters that OpenAI is known to refuse; a model that is in no table passes.

    Args:
        model: A name of OpenAI's. On another endpoint a name may mean anything.
        effort: The requested effort.
        sampling: The requested ones of `temperature` and `top_p`.

    Raises:
        RequestError: The model was shut down, or does not accept one of these.
    """
    gone = _find_row("retired", model)
    if gone and gone["on"] <= load_models()["as_of"]:
        raise RequestError(
            "{model} was shut down on {date}.",
            "model_retired",
            model=model,
            date=gone["on"],
            successor=_name_successor(gone),
        )
    family = _find_row("family", model)
    if family:
        _check_family(family, model, effort, sampling)


def _check_family(family: Mapping[str, Any], model: str, effort: str | None, sampling: Iterable[str]) -> None:
    if effort is not None and effort not in family["efforts"]:
        raise RequestError(
            "{name} {effort!r} is refused by {model}.",
            "not_a_choice",
            name=Argument("effort"),
            effort=effort,
            model=model,
            names=", ".join(family["efforts"]),
        )
    if effort in family["sampling"]:
        return
    for name in sampling:
        efforts = "".join(f" without effort {each!r}" for each in family["sampling"][:1])
        raise RequestError(
            "{name} is refused by {model}{efforts}.",
            "not_supported",
            name=Argument(f"options.{name}"),
            model=model,
            efforts=efforts,
        )


def list_known_names() -> list[str]:
    """Return the names of the current models that are known without asking a provider."""
    return list(chain.from_iterable(family["names"] for family in load_models()["family"]))


def list_efforts(model: str) -> tuple[str, ...]:
    """Return the efforts that a model of OpenAI's accepts; empty if the model is in no table."""
    return tuple(_find_row("family", model).get("efforts", ()))


def find_shutdown_date(model: str) -> str | None:
    """Return the announced day of a model's shutdown, None if none is known."""
    gone = _find_row("retired", model)
    if gone:
        return str(gone["on"])
    return None


def describe_retirement(model: str) -> str:
    """Return a sentence about the end of a model that upstream does not know, or nothing if it is in no table."""
    gone = _find_row("retired", model)
    if not gone:
        return ""
    return f"{model} was to be shut down on {gone['on']}: use {_name_successor(gone)}."


def suggest_model(model: str) -> str:
    """Return the question whether a similar model was meant, or nothing."""
    known = list_known_names()
    if model in known:
        return ""
    return ask_if_meant(model, known, MODEL_CUTOFF)


def index_listed_models(pages: Iterable[object]) -> dict[str, JSON]:
    """Return the entry of each model in a list, by its name; the pages may have any known form.

    Names are below `data` or `load_models` or in a bare list, as strings, as keys, or in objects.
    """
    found: dict[str, JSON] = {}
    for entry in chain.from_iterable(map(_list_entries, pages)):
        card = mapping_of(entry)
        names = [string_of(entry), *(string_of(card.get(field)) for field in NAME_FIELDS)]
        found.setdefault(next(filter(None, names), ""), card)
    found.pop("", None)  # entries without a name
    return found


def find_listed_model(name: str, listed: Iterable[str]) -> str | None:
    """Return the listed name that means this model: itself, as a resource, with a default tag, or by a pattern."""
    names = list(listed)
    same = [each for each in (name, f"models/{name}", f"{name}:latest") if each in names]
    patterns = [each for each in names if "*" in each and fnmatchcase(name, each)]
    return next(iter([*same, *patterns]), None)


def find_near_models(name: str, listed: Iterable[str], most: int = 3) -> list[str]:
    """Return the listed names that are most like this one: first those that differ by a prefix or in case."""
    from difflib import get_close_matches  # only for mistakes

    by_part: dict[str, list[str]] = {}
    for each in listed:
        if "*" not in each:
            by_part.setdefault(_last_part(each), []).append(each)
    # A name with the same last part is the nearest one.
    near = get_close_matches(_last_part(name), by_part, n=most, cutoff=LISTED_CUTOFF)
    return list(chain.from_iterable(by_part[part] for part in near))[:most]


def _last_part(name: str) -> str:
    """Return a name without what gateways put before it."""
    return name.rpartition("/")[2].casefold()


def _list_entries(page: Any) -> list[Any]:
    """Return the models on a page, each as a string or an object."""
    match page:
        case [*entries]:
            return entries
        case {**body}:
            held = [body[field] for field in LIST_FIELDS if isinstance(body.get(field), list | dict)]
        case _:
            return []
    match held:
        case [{**cards}, *_]:
            return _list_entries(cards) or [{"id": name, **mapping_of(card)} for name, card in cards.items()]
        case [[*entries], *_]:
            return entries
        case _:
            return []


def _find_row(table: str, model: str) -> Mapping[str, Any]:
    """Return the row of a model, or of the one that it is a dated snapshot of; empty if there is none."""
    rows = {name: row for row in load_models()[table] for name in row["names"]}
    return rows.get(model, rows.get(_SNAPSHOT.sub("", model), {}))


def _name_successor(gone: Mapping[str, Any]) -> str:
    if "with" in gone:
        return f"{gone['use']} with {gone['with']}"
    return str(gone["use"])
