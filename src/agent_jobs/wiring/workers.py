"""Build the worker with its limits, and the user's tool servers."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from agent_jobs.wiring.database import find_made_folder

if TYPE_CHECKING:  # imported where jobs are sent
    from collections.abc import Mapping

    from anyio.abc import TaskGroup

    from agent_jobs.clock import Clock
    from agent_jobs.engine.finalize import Finalizer
    from agent_jobs.engine.owner_clients import OwnerClients, OwnerSteppers
    from agent_jobs.engine.run_limits import RunLimits
    from agent_jobs.engine.start import StartDefaults
    from agent_jobs.engine.step import JobStepper
    from agent_jobs.engine.worker import Worker
    from agent_jobs.jobs.owners import OwnerLimits
    from agent_jobs.pricing.prices import Prices
    from agent_jobs.request.presets import Preset
    from agent_jobs.settings.settings import Settings
    from agent_jobs.store.base import Store
    from agent_jobs.toolbox.config import ToolServers
    from agent_jobs.toolbox.toolbox import Toolbox
    from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

DAY_S = 86_400.0


def create_start_defaults(settings: Settings, presets: Mapping[str, Preset], toolbox: Toolbox | None) -> StartDefaults:
    """Return the defaults that the settings give to each start of a job."""
    from agent_jobs.engine.start import StartDefaults
    from agent_jobs.pricing.prices import Prices

    return StartDefaults(
        prices=Prices.load(settings.prices),
        presets=presets,
        model=settings.model,
        secrets=settings.secrets,
        file_roots=settings.file_roots,
        budget_usd=settings.daily_budget_usd,
        owner_limits=read_owner_limits(settings),
        budget_spent=settings.budget_mode == "spent",
        toolbox=toolbox,
        toolbox_owners=settings.toolbox_owners,
        callback_hosts=settings.callback_hosts if settings.callback_secret_file else (),
    )


def create_steppers(
    settings: Settings, store: Store, clients: OwnerClients, clock: Clock, tasks: TaskGroup, defaults: StartDefaults
) -> OwnerSteppers:
    """Return the steppers of jobs, one for each client of an owner."""
    from agent_jobs.engine.owner_clients import OwnerSteppers
    from agent_jobs.engine.step import JobStepper
    from agent_jobs.engine.tool_loop import ToolLoop

    limits = create_limits(settings)

    def create_stepper(client: ResponsesClient) -> JobStepper:
        finalizer = create_finalizer(settings, store, client, clock, defaults.prices)
        tool_loop = ToolLoop(store, clock, finalizer, defaults.prices, defaults.toolbox, limits)
        return JobStepper(store, client, clock, limits, finalizer, tool_loop, defaults.secrets)

    return OwnerSteppers(store, clients, create_stepper(clients.shared), create_stepper, tasks)


def create_worker(
    settings: Settings, store: Store, clients: OwnerClients, steppers: OwnerSteppers, clock: Clock, tasks: TaskGroup
) -> Worker:
    """Return the worker for the jobs of the clients' endpoint."""
    from agent_jobs.engine.worker import Worker

    return Worker(
        store,
        steppers,
        clock,
        tasks,
        client=clients.shared,
        limits=create_limits(settings),
        retention_s=None if settings.retention_days is None else settings.retention_days * DAY_S,
        delete_upstream=clients if settings.delete_upstream == "yes" else None,
    )


def create_finalizer(
    settings: Settings, store: Store, client: ResponsesClient, clock: Clock, prices: Prices
) -> Finalizer:
    """Return the finalizer, which calculates costs and saves files when jobs end."""
    from agent_jobs.engine.finalize import Finalizer

    return Finalizer(store, client, clock, prices, results=settings.result_dir, made=find_made_folder(settings))


def create_limits(settings: Settings) -> RunLimits:
    """Return the limits of all runs of jobs."""
    from agent_jobs.engine.run_limits import RunLimits

    return RunLimits(
        streams=settings.follow,
        concurrent=settings.max_concurrent,
        job_timeout_s=settings.job_timeout_s,
        input_timeout_s=settings.input_timeout_s,
        budget_usd=settings.daily_budget_usd,
        owner=read_owner_limits(settings),
        budget_spent=settings.budget_mode == "spent",
        resubmit=settings.resubmit == "once",
        expects_webhooks=settings.webhook_secret_file is not None,
        mode=None if settings.mode == "auto" else settings.mode,
    )


def read_owner_limits(settings: Settings) -> OwnerLimits:
    """Return the limits of an owner who has none of their own."""
    from agent_jobs.jobs.owners import OwnerLimits

    return OwnerLimits(settings.owner_max_concurrent, settings.owner_daily_budget_usd, settings.owner_starts_per_minute)


def read_tool_servers(settings: Settings) -> ToolServers | None:
    """Read the file with the user's tool servers; return None if no file is set."""
    if settings.toolbox is None:
        return None
    from agent_jobs.toolbox.config import read_toolbox

    return read_toolbox(settings.toolbox)


def create_toolbox(settings: Settings, tasks: TaskGroup) -> Toolbox | None:
    """Return the user's tool servers, none of them started; an unreadable file stops nothing else."""
    servers = read_tool_servers(settings)
    if servers is None:
        return None
    from agent_jobs.toolbox.toolbox import Toolbox

    problems = [str(problem) for problem in (servers.broken, *servers.warnings) if problem]
    if problems:
        logger.warning("%s", " ".join(problems))
    return Toolbox(servers, os.environ, tasks, concurrency=settings.tool_concurrency)
