"""End the notification stream of a client once its token is no longer accepted."""

import logging
from typing import Any

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.shared.exceptions import MCPError

from agent_jobs.errors import StoreError
from agent_jobs.team_server.caller import Caller, get_current_caller
from agent_jobs.team_server.sign_in import CannotVerifyError, RefusedTokenError

logger = logging.getLogger(__name__)

LISTEN = "subscriptions/listen"
CHECK_S = 10.0  # as for the streams of pages


async def end_with_token(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Handle a request; end a notification stream as the protocol prescribes when its token is no longer accepted."""
    if ctx.method != LISTEN:
        return await call_next(ctx)
    result: HandlerResult = {"resultType": "complete", "_meta": {SUBSCRIPTION_ID_META_KEY: ctx.request_id}}
    refusal: MCPError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_with_token, get_current_caller(), tasks.cancel_scope)
        try:
            result = await call_next(ctx)
        except MCPError as error:  # the task group would wrap it into an ExceptionGroup
            refusal = error
        tasks.cancel_scope.cancel()
    if refusal is not None:
        raise refusal
    return result


async def _cancel_with_token(caller: Caller, scope: anyio.CancelScope) -> None:
    while True:
        await anyio.sleep(CHECK_S)
        if not await _is_accepted(caller):
            return scope.cancel()


async def _is_accepted(caller: Caller) -> bool:
    """Return False only if the caller's token is refused now."""
    if caller.verify_again is None:
        return True
    try:
        await caller.verify_again()
    except RefusedTokenError:
        return False
    except (StoreError, CannotVerifyError) as error:
        logger.warning("cannot check the token of a stream: %s", error)
    return True
