"""Authenticate callers by the bearer token of each request, before its body is read."""

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_jobs.errors import StoreError
from agent_jobs.team_server.caller import Caller, set_current_caller
from agent_jobs.team_server.connections import admit_connection
from agent_jobs.team_server.refusals import RefusalResponse

logger = logging.getLogger(__name__)

#: Characters of a token. A longer one is refused unread: it is no token of ours, and a JWT has a few hundred.
MAX_TOKEN_CHARS = 8192
#: Characters of a program's name in the audit log.
MAX_CLIENT_CHARS = 80
#: Seconds after which a client may retry while the database cannot be read.
RETRY_AFTER_S = 2


class RefusedTokenError(Exception):
    """A refused token. The client does not learn the reason, which would help to guess."""

    def __init__(self, reason: str, *, owner: str = "", token_id: str = "", lacks_scope: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason  #: a few words for the audit log; never a part of the token
        self.owner = owner
        self.token_id = token_id
        self.lacks_scope = lacks_scope


class CannotVerifyError(Exception):
    """A token that cannot be verified now: the verifier does not answer."""


class TokenVerifier(Protocol):
    """Verifies tokens of one kind."""

    def can_verify(self, token: str) -> bool:
        """Return True if a token looks like one of this kind."""
        ...

    async def verify(self, token: str) -> Caller:
        """Return the caller with this token.

        Raises:
            RefusedTokenError: The token is refused.
            StoreError, CannotVerifyError: It cannot be verified now.
        """
        ...


class Challenge(NamedTuple):
    """The answer to a client without a valid token: how to get one."""

    metadata_url: str = ""  #: of the metadata that names the authorization server; empty without one
    scope: str = "jobs"

    def refuse(self, refusal: RefusedTokenError | None) -> RefusalResponse:
        """Return the answer to a refused token; to None if there was no token."""
        if refusal is None:
            return self._build_answer(401, "no_token", "Send a token as Authorization: Bearer TOKEN.")
        if refusal.lacks_scope:
            sentence = f"The token does not have the scope {self.scope}."
            return self._build_answer(403, "insufficient_scope", sentence, error="insufficient_scope")
        sentence = "The token was refused. Ask the operator of this server for another one, or sign in again."
        return self._build_answer(401, "invalid_token", sentence, error="invalid_token")

    def _build_answer(self, status: int, code: str, sentence: str, error: str = "") -> RefusalResponse:
        parts = {"error": error, "resource_metadata": self.metadata_url, "scope": self.scope}
        if not self.metadata_url:
            parts["scope"] = ""  # there is no server to ask for it
        written = ", ".join(f'{name}="{value}"' for name, value in parts.items() if value)
        return RefusalResponse(status, code, sentence, {"WWW-Authenticate": f"Bearer {written}".strip()})


class TokenCheck:
    """Passes on the requests of callers with a valid token.

    Args:
        app: What answers them.
        verifiers: Verify the tokens.
        challenge: Says how to get a token.
        report_refused: Gets each refused token's reason, with the caller as far as it is known.
        open_paths: Paths whose routes need no token, or check their callers themselves.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifiers: Collection[TokenVerifier],
        challenge: Challenge,
        report_refused: Callable[[Caller, str], Awaitable[object]],
        open_paths: Collection[str] = (),
    ) -> None:
        self._app = app
        self._verifiers = verifiers
        self._challenge = challenge
        self._report_refused = report_refused
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse its token."""
        if scope["type"] != "http" or scope["path"] in self._open_paths:
            return await self._app(scope, receive, send)
        from agent_jobs.page.peer_address import read_address  # other commands load this module without the page

        headers = Headers(scope=scope)
        client, address = headers.get("user-agent", "")[:MAX_CLIENT_CHARS], read_address(scope)
        token = read_bearer(headers)
        if not token:
            return await self._challenge.refuse(None)(scope, receive, send)
        try:
            caller = await self._verify_token(token)
        except RefusedTokenError as refusal:
            refused = Caller(refusal.owner, refusal.token_id, client, address)
            await self._report_refused(refused, refusal.reason)
            return await self._challenge.refuse(refusal)(scope, receive, send)
        except (StoreError, CannotVerifyError) as error:
            logger.warning("cannot check a token: %s", error)
            return await RefusalResponse.not_now(RETRY_AFTER_S)(scope, receive, send)
        verify_again = partial(self._verify_token, token)
        caller = replace(caller, client=caller.client or client, address=address, verify_again=verify_again)
        set_current_caller(caller)
        admit_connection(scope)
        return await self._app(scope, receive, send)

    async def _verify_token(self, token: str) -> Caller:
        if len(token) > MAX_TOKEN_CHARS:
            raise RefusedTokenError("too long")
        for verifier in self._verifiers:
            if verifier.can_verify(token):
                return await verifier.verify(token)
        raise RefusedTokenError("unknown kind")


def read_bearer(headers: Headers) -> str:
    """Return the bearer token of a request; empty if there is none, or more than one."""
    given = headers.getlist("authorization")
    if len(given) != 1:
        return ""
    scheme, _, token = given[0].partition(" ")
    if scheme.lower() != "bearer":
        return ""
    return token.strip()
