"""Build what reports finished jobs to the user's command, to notice targets, and to the callers of jobs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from agent_jobs.wiring.endpoint import list_secrets

if TYPE_CHECKING:  # imported where jobs are sent
    from agent_jobs.clock import Clock
    from agent_jobs.engine.callbacks import CallbackRunner
    from agent_jobs.engine.on_finish import Notifier
    from agent_jobs.notices.callback_sender import CallbackSender
    from agent_jobs.notices.sender import NoticeSender
    from agent_jobs.settings.settings import Settings
    from agent_jobs.store.base import Store

logger = logging.getLogger(__name__)

NOTICE_LAST_S = 5.0  # for notices at the end of this process: a receiver on another continent answers within that


def create_notifier(settings: Settings, store: Store, clock: Clock) -> Notifier | None:
    """Return the notifier of the user's command and targets; None if there are none."""
    if not settings.on_finish and not settings.notify:
        return None
    from agent_jobs.engine.on_finish import Notifier, Reporter

    reporters: list[Reporter] = []
    if settings.on_finish:
        from agent_jobs.engine.on_finish_command import LIMIT_S, OnFinishCommand

        environment = hide_secrets(settings)
        reporters.append(OnFinishCommand(settings.on_finish, environment, settings.data_path(), LIMIT_S / clock.speed))
    if settings.notify:
        reporters.append(LateNoticeSender(settings, clock))
    return Notifier(store, clock, reporters)


def create_notice_sender(settings: Settings, clock: Clock) -> NoticeSender:
    """Return the sender of notices to the user's targets."""
    from agent_jobs.notices.sender import NoticeSender

    return NoticeSender(
        targets=settings.notify,
        events=settings.notify_events,
        min_s=settings.notify_min_s,
        secret=settings.notify_secret,
        environ=hide_secrets(settings),
        clock=clock,
    )


class LateNoticeSender:
    """A `NoticeSender` that is imported when the first notice is sent."""

    last_s = NOTICE_LAST_S
    unfinished = "notices of AGENT_JOBS_NOTIFY may not have been sent: this process ends"

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._create = partial(create_notice_sender, settings, clock)
        self._sender: NoticeSender | None = None

    def run(self, job_id: str, notice: Mapping[str, Any], /) -> None:
        """Send the notices of a job. Blocks until that is done."""
        self._sender = self._sender or self._create()
        self._sender.run(job_id, notice)


async def send_budget_notice(settings: Settings, clock: Clock) -> None:
    """Send a notice that the day's budget refuses jobs, once a day; a failure is logged."""
    from agent_jobs.notices.daily import claim_day
    from agent_jobs.notices.notice import make_refusal_notice

    now = clock.now()
    try:
        with anyio.move_on_after(NOTICE_LAST_S, shield=True):  # the command that was refused ends now
            if await anyio.to_thread.run_sync(claim_day, settings.data_path() / "run", now):
                await create_notice_sender(settings, clock).deliver("budget", make_refusal_notice(now))
    except Exception:
        logger.exception("the notice of the budget was not sent")


def create_callback_sender(settings: Settings, clock: Clock, *, serves_owners: bool) -> CallbackSender | None:
    """Return the sender of callbacks to callers and subscribers; None if the user allows no such calls.

    Subscribers bring a secret of their own, and only a team server has them.
    """
    has_secrets = settings.callback_secret_file is not None
    if not settings.callback_hosts or not (has_secrets or serves_owners):
        return None
    from agent_jobs.notices.callback_sender import CallbackSender, read_signing_secrets

    secrets: Sequence[bytes] = ()
    if settings.callback_secret_file is not None:
        secrets = read_signing_secrets(settings.callback_secret_file)
    return CallbackSender(settings.callback_hosts, secrets, clock)


def create_callback_runner(store: Store, clock: Clock, sender: CallbackSender | None) -> CallbackRunner | None:
    """Return the runner that sends callbacks; None if there is no sender."""
    if sender is None:
        return None
    from agent_jobs.engine.callbacks import CallbackRunner

    return CallbackRunner(store, clock, sender.send)


def hide_secrets(settings: Settings) -> dict[str, str]:
    """Return this process's environment without our secrets, for a program of the user."""
    hidden = {*list_secrets(settings)} - {""}
    return {
        name: value
        for name, value in os.environ.items()
        if name != "OPENAI_API_KEY" and name not in settings.secrets and value.strip() not in hidden
    }
