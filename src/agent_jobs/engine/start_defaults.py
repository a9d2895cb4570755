"""The settings for new jobs, and the jobs that a start plans to store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent_jobs.callback_urls import AllowedHost
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.owners import UNLIMITED, OwnerLimits
from agent_jobs.pricing.prices import Prices
from agent_jobs.request.hosted_tools import Secret
from agent_jobs.request.presets import Preset
from agent_jobs.store.values import Budget, Upload

if TYPE_CHECKING:
    from agent_jobs.toolbox.toolbox import Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDefaults:
    """The user's settings for new jobs.

    Args:
        prices: Prices of models.
        presets: Requests by name.
        model: The model if neither the caller nor a preset names one; None takes the one in data/.
        secrets: Values that may stand in a request as `${NAME}`.
        file_roots: The folders below which files may be read.
        budget_usd: The most that the jobs of one day (UTC) may cost.
        owner_limits: Limits of an owner, where none were set for the owner.
        budget_spent: True if only finished jobs count to the budget, without reservations for running ones.
        toolbox: The user's own tool servers.
        toolbox_owners: The owners of a team server to whom they are lent.
        callback_hosts: The hosts that may be called back.
    """

    prices: Prices
    presets: Mapping[str, Preset]
    model: str | None = None
    secrets: Mapping[str, Secret] = field(default_factory=dict[str, Secret])
    file_roots: Sequence[Path] = ()
    budget_usd: float | None = None
    owner_limits: OwnerLimits = UNLIMITED
    budget_spent: bool = False
    toolbox: "Toolbox | None" = None
    toolbox_owners: Sequence[str] = ()
    callback_hosts: Sequence[AllowedHost] = ()


@dataclass(frozen=True, slots=True)
class PlannedStart:
    """The jobs of a request, with the rows that are stored beside them."""

    jobs: list[Job]
    uploads: list[Upload]
    budgets: Sequence[Budget] = ()
    allow_duplicate: bool = False  #: also if another job does the same work already
    starts_per_minute: int | None = None  #: of their owner
