"""`agent-jobs models`: list the models that a job can use."""

import time
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import click

from agent_jobs.cli.config import hide_query
from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.sections import style, wrap_sentence
from agent_jobs.cli.display.table import render_table
from agent_jobs.cli.model_list import (
    OPENAI_URL,
    ModelRow,
    describe_listed_models,
    find_default_model,
    is_list_known,
    list_known_models,
)
from agent_jobs.cli.session import Session, convert_errors, create_refusal, json_option, read_settings, run_in_session
from agent_jobs.cli.wording import describe_error
from agent_jobs.errors import AgentJobsError, RequestError, UpstreamError
from agent_jobs.jobs.response import JSON
from agent_jobs.settings.settings import Settings
from agent_jobs.text import compact_json

#: Statuses of an endpoint that does not serve the path.
NO_SUCH_PATH = (404, 405, 501)
#: Columns with figures.
FIGURES = ("INPUT", "CACHED", "OUTPUT", "CONTEXT")
#: Columns that a narrow terminal does not need.
DISPENSABLE = ("CACHED", "CONTEXT")


@click.command("models")
@click.option("--known", is_flag=True, help="List the models that agent-jobs knows, without asking the provider.")
@json_option
def models_command(known: bool, as_json: bool) -> None:
    """List the models of the provider, with their prices.

    Prices are USD per million tokens: of input, of input that the provider had cached, and of output. CONTEXT is the
    number of tokens that the model reads at most. What is not known is left empty.

    Without a key or a network, the models of OpenAI that agent-jobs knows are listed, and stderr says so.
    """
    settings = read_settings()
    found = _find_known_models(settings) if known else _find_models(settings)
    if found.reason:
        others = "These are the models that agent-jobs knows; the provider may have others."
        click.echo(f"{found.reason} {others}", err=True)
    if as_json:
        return click.echo(compact_json(_render_models(found, settings)))
    return click.echo("\n".join(_render_model_table(found.rows, settings)))


class _FoundModels(NamedTuple):
    """The models of the list, and where they come from."""

    rows: list[ModelRow]
    source: Literal["provider", "known"]
    provider_url: str
    reason: str = ""  #: why the provider was not asked, if it should have been


def _find_known_models(settings: Settings, reason: str = "") -> _FoundModels:
    with convert_errors():
        return _FoundModels(list_known_models(settings, time.time()), "known", OPENAI_URL, reason)


def _find_models(settings: Settings) -> _FoundModels:
    """Return the models that the provider lists; if it cannot be asked, the known ones, and why.

    Raises:
        click.ClickException: The provider refuses the key or has no list, or its models are not known here.
    """
    if not settings.has_key and is_list_known(settings):
        return _find_known_models(settings, "The provider was not asked, because no API key is set.")
    address = hide_query(settings.base_url)
    try:
        cards = run_in_session(lambda session: _ask_provider(session, address), role="acts", settings=settings)
    except _NotReachedError as error:
        if not is_list_known(settings):
            raise create_refusal(error.cause) from None
        reason = f"{address} was not reached ({describe_error(error.cause).rstrip('.')})."
        return _find_known_models(settings, reason)
    with convert_errors():
        return _FoundModels(describe_listed_models(cards, settings, time.time()), "provider", address)


class _NotReachedError(Exception):
    """The provider did not answer."""

    def __init__(self, cause: AgentJobsError) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def _ask_provider(session: Session, address: str) -> dict[str, JSON]:
    """Return the provider's description of each model.

    Raises:
        RequestError: It has no list.
    """
    try:
        cards = await session.engine.list_models()
    except UpstreamError as error:
        if error.status in NO_SUCH_PATH or error.code == "not_a_responses_api":
            raise RequestError(_describe_missing_list(address, str(error))) from None
        if error.status is None:
            raise _NotReachedError(error) from None
        raise
    if not cards:
        raise RequestError(_describe_missing_list(address, "its list is empty"))
    return cards


def _describe_missing_list(address: str, reason: str) -> str:
    return (
        f"{address} has no list of models ({reason.rstrip('.')}). Check OPENAI_BASE_URL, which usually ends in /v1, or "
        "name a model of this provider with --model or AGENT_JOBS_MODEL."
    )


def _render_models(found: _FoundModels, settings: Settings) -> JSON:
    return {
        "source": found.source,
        "provider_url": found.provider_url,
        "default": find_default_model(settings),
        "models": list(map(_render_model, found.rows)),
    }


def _render_model(row: ModelRow) -> JSON:
    """Return what is known of a model."""
    fields: dict[str, Any] = {
        "model": row.name,
        "default": row.is_default or None,
        "input_usd_per_million": row.input_usd,
        "cached_usd_per_million": row.cached_usd,
        "output_usd_per_million": row.output_usd,
        "context_tokens": row.context_tokens,
        "efforts": row.efforts,
        "shutdown_date": row.shutdown_date,
    }
    return {name: value for name, value in fields.items() if value not in (None, ())}


def _render_model_table(rows: Sequence[ModelRow], settings: Settings) -> Iterator[str]:
    """Yield the table, and what it says of the default model."""
    cells = list(map(_build_model_cells, rows))
    lines = render_table(cells, terminal.find_width(), flexible="MODEL", figures=FIGURES, dispensable=DISPENSABLE)
    yield next(lines)
    for line, row in zip(lines, rows, strict=True):
        if row.is_default:
            line = style(line, bold=True)
        yield line
    yield ""
    if any(map(itemgetter("INPUT"), cells)):
        yield from wrap_sentence("Prices are USD per million tokens.")
    yield from wrap_sentence(f"Use another model with: agent-jobs run --model {_name_other(rows)} ...")
    if not any(row.is_default for row in rows):  # those that are known here have it
        default = find_default_model(settings)
        yield from wrap_sentence(
            f"{default}, the default of jobs, is not in this list. Set AGENT_JOBS_MODEL to one that is."
        )


def _name_other(rows: Sequence[ModelRow]) -> str:
    """Return the name of a model that is not the default and has no date of its end."""
    return next((row.name for row in rows if not (row.is_default or row.shutdown_date)), "NAME")


def _build_model_cells(row: ModelRow) -> dict[str, str]:
    """Return a model's cells by the names of their columns."""
    notes = ["default"] if row.is_default else []
    if row.shutdown_date:
        notes.append(f"ends {row.shutdown_date}")
    return {
        "MODEL": terminal.join_lines(row.name),
        "INPUT": _format_price(row.input_usd),
        "CACHED": _format_price(row.cached_usd),
        "OUTPUT": _format_price(row.output_usd),
        "CONTEXT": _shorten_tokens(row.context_tokens),
        "NOTE": ", ".join(notes),
    }


def _format_price(usd: float | None) -> str:
    """Return a price to the cent, a smaller part of it with all its digits."""
    if usd is None:
        return ""
    if round(usd, 2) == usd:
        return f"${usd:.2f}"
    return f"${usd:g}"


def _shorten_tokens(count: int | None) -> str:
    if count is None:
        return ""
    if count >= 1_000_000:
        return f"{count / 1_000_000:.3g}M"
    if count >= 1_000:
        return f"{count // 1_000}k"
    return str(count)
