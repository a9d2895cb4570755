"""Check that the provider accepts the key and has the model."""

import re
from collections.abc import Mapping
from datetime import date

from agent_jobs.cli.checks.finding import Finding, describe_fix_in_words, report_error
from agent_jobs.cli.config import hide_query
from agent_jobs.cli.display import terminal
from agent_jobs.cli.wording import describe_problem
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AccountError, AgentJobsError, ConfigError, RefusedError, UpstreamError
from agent_jobs.jobs.response import JSON
from agent_jobs.request.models import find_listed_model, find_near_models, load_models, suggest_model
from agent_jobs.settings.settings import Settings

#: Days before its shutdown from which a model is reported.
SHUTDOWN_NOTICE_DAYS = 60
#: Names of a list of models that one finding shows.
SHOWN_MODELS = 5
ADDRESS_FIX = "check OPENAI_BASE_URL, which usually ends in /v1; a job shows whether it is right"
REFUSED_KEY_FIX = "store a valid key with agent-jobs key set, or correct OPENAI_API_KEY where it is set"
CONNECTION_FIX = "check OPENAI_BASE_URL, the network and the proxy (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE)"
#: The consequences of a learned delivery mode for the jobs of an endpoint.
MODE_NOTES = {
    "foreground": "This endpoint does not support background mode; jobs run in the foreground.",
    "background": "This endpoint does not stream background jobs; they are polled.",
}


async def check_endpoint(engine: Engine, settings: Settings) -> list[Finding]:
    """Ask for the model by its name. If the endpoint does not serve that, read the list of models."""
    name = settings.model or load_models()["default"]
    address = hide_query(settings.base_url)
    try:
        answer = await engine.describe_model(name)
    except AgentJobsError as error:
        return await _explain_missing_description(engine, name, address, error)
    known = await _report_reachable(engine, name, f"{address} answers and accepts the key")
    return [known, _report_model(name, answer.get("shutdown_date"), engine.now())]


async def _explain_missing_description(engine: Engine, name: str, address: str, error: AgentJobsError) -> list[Finding]:
    """Return the findings of an endpoint that did not describe the model, by the error."""
    match error:
        case AccountError():
            return [_report_refused_key(address, error)]
        case ConfigError():
            return [report_error("settings", error)]
        case UpstreamError(status=int()):  # a gateway may answer 500 if only this path is missing
            return await _check_by_list(engine, name, address, error)
        case _:
            return [_report_unreachable(address, error)]


async def _check_by_list(engine: Engine, name: str, address: str, error: UpstreamError) -> list[Finding]:
    """Return the findings of an endpoint that did not answer for one model."""
    list_error: UpstreamError = error
    listed: Mapping[str, JSON] = {}
    try:
        listed = await engine.list_models()
    except AccountError as refused:
        return [_report_refused_key(address, refused)]
    except UpstreamError as failed:
        list_error = failed
    if not listed:
        return await _check_without_list(engine, name, address, error, list_error)
    known = await _report_reachable(engine, name, f"{address} answers with this key and lists its models")
    found = find_listed_model(name, listed)
    if found is None:
        return [known, _report_unlisted_model(name, address, listed)]
    return [known, _report_model(name, listed[found].get("shutdown_date"), engine.now())]


async def _check_without_list(
    engine: Engine, name: str, address: str, error: UpstreamError, list_error: UpstreamError
) -> list[Finding]:
    """Return the findings of an endpoint without a list of models."""
    if _is_about_model(error):
        known = await _report_reachable(engine, name, f"{address} answers and accepts the key")
        text = " ".join(filter(None, [f"{name}: {error}", suggest_model(name)]))
        return [known, Finding("model", "problem", text, f"set AGENT_JOBS_MODEL to a model that {address} has")]
    if error.code == list_error.code == "not_a_responses_api":
        text = f"{address} does not answer as an API, perhaps with a web page ({list_error})"
        return [Finding("upstream", "problem", text, ADDRESS_FIX)]
    if not isinstance(error, RefusedError):
        return [_report_unreachable(address, error)]
    text = f"{address} answers, but does not say which models it has ({error}); the key is not tested"
    return [Finding("upstream", "warning", text, ADDRESS_FIX)]


def _report_unlisted_model(name: str, address: str, listed: Mapping[str, JSON]) -> Finding:
    """Return the finding of a model that the endpoint does not list, with the nearest names."""
    near = find_near_models(name, listed)
    names = ", ".join(near) or terminal.join_first(list(listed), SHOWN_MODELS)
    fix = f"set AGENT_JOBS_MODEL to a model that {address} has: {names}"
    if ".azure.com" in address:
        return Finding("model", "warning", f"{address} does not list {name}; deployments need not be listed", fix)
    return Finding("model", "problem", f"{address} does not list {name}", fix)


def _is_about_model(error: UpstreamError) -> bool:
    """Return True if a refusal is about the model, not about a path that contains the word."""
    return error.status in (400, 404) and re.search(r"\bmodel(_|\b)", f"{error.code} {error}", re.I) is not None


def _report_refused_key(address: str, error: AccountError) -> Finding:
    return Finding("upstream", "problem", f"{address} refuses the key: {error}", REFUSED_KEY_FIX)


def _report_unreachable(address: str, error: AgentJobsError) -> Finding:
    fix = CONNECTION_FIX
    if isinstance(error, UpstreamError) and error.fix:
        fix = describe_fix_in_words(error)
    return Finding("upstream", "problem", f"{address}: {describe_problem(error)}", fix)


async def _report_reachable(engine: Engine, model: str, text: str) -> Finding:
    """Return the finding of an endpoint that answers, with the delivery mode that earlier jobs found out."""
    mode = await engine.learned_mode(model)
    if mode is None:
        return Finding("upstream", "ok", text)
    note = MODE_NOTES.get(mode, f"Jobs are sent as {mode}, which it accepted before.")
    return Finding("upstream", "ok", f"{text}. {note}")


def _report_model(name: str, shutdown: object, now: float) -> Finding:
    """Return the finding of a model that exists, a warning if it will be shut down soon."""
    days = _count_days_until(shutdown, now)
    if days is None:
        return Finding("model", "ok", f"{name} is available")
    if days > SHUTDOWN_NOTICE_DAYS:
        return Finding("model", "ok", f"{name} is available until {shutdown}")
    text = f"{name} was shut down on {shutdown}"
    if days >= 0:
        text = f"{name} will be shut down on {shutdown}, in {days} days"
    return Finding("model", "warning", text, f"set AGENT_JOBS_MODEL to another, such as {load_models()['default']}")


def _count_days_until(day: object, now: float) -> int | None:
    """Return the days until a date; None if there is none or it cannot be read."""
    try:
        return (date.fromisoformat(str(day)) - date.fromtimestamp(now)).days
    except ValueError:
        return None
