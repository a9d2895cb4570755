"""What models take and which are gone, as data/models.toml says. Pure, but for reading that file once."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from agent_jobs.errors import RequestError
from agent_jobs.text import nearest

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


def _row(table: str, model: str) -> Mapping[str, Any] | None:
    for name in (model, _SNAPSHOT.sub("", model)):
        for row in models()[table]:
            if name in row["names"]:
                return row
    return None


def _instead(gone: Mapping[str, Any]) -> str:
    return f"use {gone['use']}" + (f" with {gone['with']}" if "with" in gone else "")
