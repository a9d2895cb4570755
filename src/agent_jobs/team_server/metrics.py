"""Answer `GET /metrics` for Prometheus: jobs by owner, their costs, and the lag of this server.

The names of owners are labels. So it needs a token of its own; a team token is refused.
"""

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, ConfigError
from agent_jobs.files.secret_file import read_secret_file
from agent_jobs.team_server.refusals import RefusalResponse
from agent_jobs.team_server.sign_in import read_bearer

METRICS_PATH = "/metrics"
MAX_OWNERS = 50  # each value of a label is a permanent time series, so all other owners share one
OTHERS = "(others)"
SINGLE_USER = "(none)"  # the owner of jobs that were started without a team server
MIN_TOKEN_CHARS = 20  # shorter ones can be guessed


def build_metrics_route(engine: Callable[[], Awaitable[Engine]], token_file: Path) -> Route:
    """Return the route for Prometheus. It accepts the token of this file only.

    Args:
        engine: Returns the engine once it is open, unbound to any owner.
        token_file: The file with the bearer token that Prometheus sends, `Settings.metrics_token_file`.

    Raises:
        ConfigError: The file has no usable token.
    """
    expected = read_metrics_token(token_file).encode()

    async def show(request: Request) -> Response:
        if not secrets.compare_digest(read_bearer(request.headers).encode(), expected):
            return RefusalResponse(401, "no_token", "Send the token of the metrics.", {"WWW-Authenticate": "Bearer"})
        try:
            metrics = await (await engine()).metrics()
        except AgentJobsError:
            return RefusalResponse.no_database(1)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected(list_metrics(metrics)))
        headers = {"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
        return Response(generate_latest(registry), headers=headers)

    return Route(METRICS_PATH, show, methods=["GET"])


def read_metrics_token(path: Path) -> str:
    """Return the token on the first line of a file.

    Raises:
        ConfigError: It cannot be read, or has none, or a short one. The sentence does not repeat it.
    """
    token = read_secret_file("AGENT_JOBS_METRICS_TOKEN_FILE", path).partition("\n")[0].strip()
    if len(token) < MIN_TOKEN_CHARS or not token.isascii():
        raise ConfigError(
            f"AGENT_JOBS_METRICS_TOKEN_FILE names {path}, which has no token of {MIN_TOKEN_CHARS} characters or more "
            "on its first line."
        )
    return token


def list_metrics(metrics: Any) -> list[Metric]:
    """Return the metrics in the form of Prometheus, a bounded number of them."""
    stored = metrics.stored
    known = _choose_owners(stored.owners.active, dict(stored.owners.costs))
    active, costs = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for owner, status, jobs in stored.owners.active:
        active[_label_owner(owner, known), status] += jobs
    for owner, usd in stored.owners.costs:
        costs[(_label_owner(owner, known),)] += usd
    size, used = stored.connections
    return [
        _make_gauge("jobs", "Jobs in the database.", {(name,): n for name, n in stored.jobs.items()}, "status"),
        _make_gauge("active_jobs", "Jobs that have not ended.", active, "owner", "status"),
        _make_gauge("cost_today_usd", "Cost of the jobs that were started today (UTC).", costs, "owner"),
        _make_counter("starts", "Jobs that this process started.", metrics.starts),
        _make_counter("polls", "Calls of this process that asked for a job.", metrics.polls),
        _make_counter("waits", "Waits of callers that this process began.", metrics.waits),
        _make_counter("retrievals", "GETs of responses that this process sent to the provider.", metrics.retrievals),
        _make_gauge("waits_open", "Waits of callers that are under way in this process.", {(): metrics.waits_open}),
        _make_gauge("step_lateness_seconds", "Age of the oldest step that is overdue.", {(): metrics.lateness_s}),
        _make_gauge("webhook_age_seconds", "Time since the last webhook.", _as_samples(metrics.webhook_age_s)),
        _make_gauge(
            "connections", "Connections of this process to PostgreSQL.", {("open",): size, ("used",): used}, "state"
        ),
    ]


class _Collected(Collector):
    """Metrics that were collected before, since a registry cannot wait for a database."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def _choose_owners(active: Iterable[tuple[str, str, int]], costs: Mapping[str, float]) -> frozenset[str]:
    """Return the owners that get labels of their own: those with the most active jobs, then with the highest costs."""
    jobs = Counter[str]()
    for owner, _, count in active:
        jobs[owner] += count
    named = {*jobs, *costs} - {""}  # jobs without an owner always have a label
    ranked = sorted(named, key=lambda owner: (-jobs[owner], -costs.get(owner, 0.0), owner))
    return frozenset(ranked[:MAX_OWNERS])


def _label_owner(owner: str, known: frozenset[str]) -> str:
    if owner == "":
        return SINGLE_USER
    if owner in known:
        return owner
    return OTHERS


def _as_samples(value: float | None) -> dict[tuple[str, ...], float]:
    if value is None:
        return {}
    return {(): value}


def _make_gauge(name: str, about: str, samples: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    family = GaugeMetricFamily(f"agent_jobs_{name}", about, labels=labels)
    for values, value in samples.items():
        family.add_metric(values, value)
    return family


def _make_counter(name: str, about: str, value: int) -> Metric:
    return CounterMetricFamily(f"agent_jobs_{name}", about, value=value)
