"""Send notices to their targets, and log those that cannot be sent."""

import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from typing import Any

import anyio
import httpx2

from agent_jobs.backoff import calculate_backoff_s, with_jitter
from agent_jobs.clock import Clock
from agent_jobs.notices.desktop import show_on_desktop
from agent_jobs.notices.notice import Notice, make_notice
from agent_jobs.notices.requests import build_request
from agent_jobs.settings.notice_targets import NoticeTarget, decode_secret
from agent_jobs.settings.values import SecretStr

logger = logging.getLogger(__name__)

ATTEMPTS = 4
FIRST_RETRY_S, MAX_RETRY_S = 2.0, 60.0
REQUEST_LIMIT_S = 15.0  # for one attempt: receivers only have to accept
#: Answers after which the same request may succeed. All others are final.
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

#: httpx2 logs the address of each request at the level `info`; that of a notice is a secret.
_is_sending: ContextVar[bool] = ContextVar("is_sending", default=False)
logging.getLogger("httpx2").addFilter(lambda record: not _is_sending.get())


def hide_addresses() -> None:
    """Keep the addresses of requests that the running task sends from now on out of the log."""
    _is_sending.set(True)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeSender:
    """Sends notices of jobs; see `run`.

    Args:
        targets: Where they go.
        events: The events that are sent.
        min_s: A job that finished earlier after its start is not worth a notice.
        secret: Signs webhooks. None leaves them unsigned; an empty one is unusable, and they are not sent.
        environ: The environment of the program that shows notices on the desktop.
        clock: The time.
    """

    targets: Sequence[NoticeTarget]
    events: frozenset[str]
    min_s: float
    secret: SecretStr | None
    environ: Mapping[str, str]
    clock: Clock = field(default_factory=Clock)
    _logged: set[str] = field(default_factory=set[str], init=False)

    def run(self, job_id: str, report: Mapping[str, Any]) -> None:
        """Send the notice of a job to all targets, unless the user does not want it. Blocks until it is sent.

        Args:
            job_id: For the log.
            report: The input of a command of AGENT_JOBS_ON_FINISH about the job.
        """
        notice = make_notice(report, self.clock.now())
        if self._is_wanted(notice):
            self.send(job_id, notice)

    def send(self, subject: str, notice: Notice) -> dict[NoticeTarget, str]:
        """Send a notice as `deliver` does. Blocks until that is done."""
        return anyio.run(self.deliver, subject, notice)

    async def deliver(self, subject: str, notice: Notice) -> dict[NoticeTarget, str]:
        """Send a notice to all targets; return for each the reason of a failure, empty if it was sent.

        Args:
            subject: Its subject, for the log.
            notice: The event.
        """
        failures = await self._send_to_all(notice)
        for target, failure in failures.items():
            self._log_outcome(subject, target, failure)
        return failures

    def _log_outcome(self, subject: str, target: NoticeTarget, failure: str) -> None:
        if not failure:
            return logger.info("%s: its notice was sent to %s", subject, target)
        level = logging.WARNING
        if target.kind == "desktop" and failure in self._logged:
            level = logging.DEBUG  # it stays so until a program is installed
        self._logged.add(failure)
        return logger.log(level, "%s: its notice was not sent to %s: %s", subject, target, failure)

    def _is_wanted(self, notice: Notice) -> bool:
        if notice.event not in self.events:
            return False
        return notice.event != "finished" or notice.data.get("elapsed_s", 0) >= self.min_s

    async def _send_to_all(self, notice: Notice) -> dict[NoticeTarget, str]:
        hide_addresses()
        failures: dict[NoticeTarget, str] = {}
        message_id = f"msg_{token_hex(12)}"

        async def send(target: NoticeTarget) -> None:
            try:
                failures[target] = await self._send_to_one(target, notice, message_id)
            except Exception as error:  # its text may hold the address
                failures[target] = type(error).__name__

        async with anyio.create_task_group() as tasks:
            for target in self.targets:
                tasks.start_soon(send, target)
        return failures

    async def _send_to_one(self, target: NoticeTarget, notice: Notice, message_id: str) -> str:
        if target.kind == "desktop":
            return await anyio.to_thread.run_sync(show_on_desktop, notice, self.environ)
        if target.kind == "webhook" and self.secret == SecretStr(""):
            return "AGENT_JOBS_NOTIFY_SECRET cannot be used"
        secret = None
        if self.secret:
            secret = decode_secret(self.secret.get_secret_value())
        build = partial(build_request, target.kind, notice, message_id=message_id, secret=secret)
        failure, attempt = "", 0
        async with httpx2.AsyncClient(follow_redirects=False, timeout=REQUEST_LIMIT_S) as client:
            while attempt < ATTEMPTS:
                attempt += 1
                request = build(sent_at=self.clock.now())
                failure, is_final = await _post_once(client, target.address, request.headers, request.body)
                if is_final:
                    return failure
                if attempt < ATTEMPTS:
                    await self.clock.sleep(
                        with_jitter(calculate_backoff_s(attempt, first_s=FIRST_RETRY_S, most_s=MAX_RETRY_S))
                    )
        return f"{failure}, {ATTEMPTS} times"


async def _post_once(
    client: httpx2.AsyncClient, address: SecretStr, headers: Mapping[str, str], body: bytes
) -> tuple[str, bool]:
    """Return the failure of a request, empty if there is none, and True if it is final. It never has the address."""
    try:
        with anyio.fail_after(REQUEST_LIMIT_S):
            url = address.get_secret_value()
            async with client.stream("POST", url, headers=dict(headers), content=body) as response:
                status = response.status_code
    except (TimeoutError, httpx2.TimeoutException):
        return "no answer in time", False
    except httpx2.TransportError as error:
        return f"no connection ({type(error).__name__})", False
    if 200 <= status < 300:
        return "", True
    if 300 <= status < 400:
        return f"it redirects elsewhere (status {status}), which is not followed", True
    return f"it answered with status {status}", status not in RETRIED_STATUSES
