"""Shut a process down in order when it gets a signal."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

import anyio
from anyio.abc import TaskStatus

from agent_jobs.ctrl_c import catch_ctrl_c

logger = logging.getLogger(__name__)


async def cancel_on_signal(
    scope: anyio.CancelScope,
    interrupt: Callable[[], bool] = lambda: True,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Cancel a scope when the process gets a signal to end, or its terminal is closed.

    Args:
        scope: The scope to cancel.
        interrupt: Called at each Ctrl-C; returns True if the scope ends now. The other signals always end it.
        task_status: Started once signals are received.
    """
    if sys.platform == "win32":  # pragma: no cover
        task_status.started()
        return  # the event loop there has no signal receiver: hosts close stdin, Ctrl-C ends the process
    ends = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup has the process ignore it
        ends.append(signal.SIGHUP)

    def end_on_interrupt() -> None:
        if interrupt():
            logger.info("ending on signal %s", signal.SIGINT)
            scope.cancel()

    with catch_ctrl_c(end_on_interrupt), anyio.open_signal_receiver(*ends) as signals:
        task_status.started()
        async for number in signals:
            logger.info("ending on signal %s", number)
            scope.cancel()
