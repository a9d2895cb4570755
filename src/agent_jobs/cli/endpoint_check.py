"""What `doctor` finds at the provider's address: whether it takes the key, and whether it has the model."""

import re
from collections.abc import Mapping
from datetime import date

from agent_jobs.cli.config import bare
from agent_jobs.cli.finding import Finding
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AccountError, AgentJobsError, ConfigError, RefusedError, UpstreamError
from agent_jobs.jobs.response import JSON
from agent_jobs.request.body import find_listed, near_models, suggest_model
from agent_jobs.request.models import models
from agent_jobs.settings import Settings

#: A model that is shut down sooner is told of.
SOON_DAYS = 60
#: Names that are shown of a list.
NAMES_SHOWN = 5
ADDRESS_FIX = "check OPENAI_BASE_URL, which usually ends in /v1; a job shows whether it is right"


async def upstream_findings(engine: Engine, settings: Settings) -> list[Finding]:
    """Ask for the model by its name, with the key; where that is not served, read the list of models."""
    name = settings.model or models()["default"]
    where = bare(settings.base_url)
    try:
        answer = await engine.describe_model(name)
    except AccountError as error:
        return [_refused_key(where, error)]
    except ConfigError as error:
        return [Finding("settings", "problem", str(error))]
    except UpstreamError as error:
        # A gateway may answer 500 where only this path is missing.
        return [_unreachable(where, error)] if error.status is None else await _by_list(engine, name, where, error)
    except AgentJobsError as error:
        return [_unreachable(where, error)]
    known = Finding("upstream", "ok", f"{where} answers and takes the key{await _mode(engine, name)}")
    return [known, _model(name, answer.get("shutdown_date"), engine.now())]


async def _by_list(engine: Engine, name: str, where: str, error: UpstreamError) -> list[Finding]:
    """Return the findings where upstream did not answer for one model."""
    no_list: UpstreamError = error
    listed: Mapping[str, JSON] = {}
    try:
        listed = await engine.list_models()
    except AccountError as refused:
        return [_refused_key(where, refused)]
    except UpstreamError as failed:
        no_list = failed
    if not listed:
        return await _without_list(engine, name, where, error, no_list)
    there = f"{where} answers with this key and lists its models{await _mode(engine, name)}"
    found = find_listed(name, listed)
    if found is not None:
        return [Finding("upstream", "ok", there), _model(name, listed[found].get("shutdown_date"), engine.now())]
    return [Finding("upstream", "ok", there), _unlisted(name, where, listed)]


async def _without_list(
    engine: Engine, name: str, where: str, error: UpstreamError, no_list: UpstreamError
) -> list[Finding]:
    """Return the findings where only the answer for the one model says anything."""
    if _names_model(error):
        known = Finding("upstream", "ok", f"{where} answers and takes the key{await _mode(engine, name)}")
        fix = f"set AGENT_JOBS_MODEL to one that {where} has"
        text = " ".join(filter(None, [f"{name}: {error}", suggest_model(name)]))
        return [known, Finding("model", "problem", text, fix)]
    if error.code == no_list.code == "not_a_responses_api":
        text = f"{where} does not answer as an API, perhaps with a web page ({no_list})"
        return [Finding("upstream", "problem", text, ADDRESS_FIX)]
    if not isinstance(error, RefusedError):
        return [_unreachable(where, error)]
    text = f"{where} answers, but does not say what models it has ({error}); the key is not tested"
    return [Finding("upstream", "warning", text, ADDRESS_FIX)]


def _unlisted(name: str, where: str, listed: Mapping[str, JSON]) -> Finding:
    """Return what to do about a model that upstream does not list, with the names that are nearest to it."""
    near = near_models(name, listed)
    shown = near or list(listed)[:NAMES_SHOWN]
    more = f" and {len(listed) - len(shown)} more" if not near and len(listed) > len(shown) else ""
    fix = f"set AGENT_JOBS_MODEL to one that {where} has: {', '.join(shown)}{more}"
    if ".azure.com" in where:
        return Finding("model", "warning", f"{where} does not list {name}, which a deployment need not be", fix)
    return Finding("model", "problem", f"{where} does not list {name}", fix)


def _names_model(error: UpstreamError) -> bool:
    """Return True if a refusal speaks of the model, and not merely of a path that has the word in it."""
    return error.status in (400, 404) and re.search(r"\bmodel(_|\b)", f"{error.code} {error}", re.I) is not None


def _refused_key(where: str, error: AccountError) -> Finding:
    return Finding("upstream", "problem", f"{where} refuses the key: {error}", "set a valid OPENAI_API_KEY")


def _unreachable(where: str, error: AgentJobsError) -> Finding:
    usual = "check OPENAI_BASE_URL, the network and the proxy (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE)"
    fix = error.fix or usual if isinstance(error, UpstreamError) else usual
    return Finding("upstream", "problem", f"{where}: {error}", fix)


async def _mode(engine: Engine, model: str) -> str:
    taught = await engine.learned_mode(model)
    return f"; it taught us to send jobs as {taught}" if taught else ""


def _model(name: str, shutdown: object, now: float) -> Finding:
    try:
        days = (date.fromisoformat(str(shutdown)) - date.fromtimestamp(now)).days if shutdown else None
    except ValueError:
        days = None
    if days is None or days > SOON_DAYS:
        return Finding("model", "ok", f"{name} is there" + (f" until {shutdown}" if days else ""))
    text = f"{name} is shut down on {shutdown}, in {days} days" if days >= 0 else f"{name} was shut down on {shutdown}"
    return Finding("model", "warning", text, f"set AGENT_JOBS_MODEL to another, such as {models()['default']}")
