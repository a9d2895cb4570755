"""Let users into the page, and give each form a token of its session.

Nothing here is stored but one secret. A link and a cookie carry their own expiry, signed with it.
"""

import hmac
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes, token_urlsafe
from typing import ClassVar, NamedTuple

from agent_jobs.token_format import hash_token

#: A link is opened at once, by the user who asked for it.
LINK_S = 600
#: A browser stays signed in this long.
SESSION_S = 30 * 86_400
#: Bytes of the secret that signs links and cookies.
SECRET_BYTES = 32
#: File of that secret, in the folder of the database.
SECRET_FILE = "page.key"


class BrowserSession(NamedTuple):
    """A signed-in browser."""

    token: str  #: the value of its cookie; empty if the browser is not signed in
    owner: str = ""  #: whose jobs it sees; empty for the only user of a machine
    token_id: str = ""  #: of the team token with which it signed in


class TokenOwner(NamedTuple):
    """Who has a team token."""

    owner: str
    token_id: str


#: Returns who has the team token with this hash; None if there is no such token, or it ended.
FindOwner = Callable[[str], Awaitable[TokenOwner | None]]
#: Records an action of a user with a token: the user, the action, and the address of the browser.
RecordVisit = Callable[[TokenOwner, str, str], Awaitable[object]]


def read_secret(folder: Path) -> bytes:
    """Return the secret of this folder's pages; both are made at the first call, for their owner alone.

    Raises:
        OSError: The file cannot be read or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # jobs in PostgreSQL need no folder
    path = folder / SECRET_FILE
    with suppress(FileExistsError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(token_bytes(SECRET_BYTES))
    secret = path.read_bytes()
    if len(secret) == SECRET_BYTES:
        return secret
    path.unlink()  # a crash cut it short
    return read_secret(folder)


def derive_secret(key: str) -> bytes:
    """Return the secret of the pages of a team server, which is the same wherever the API key is the same."""
    return hmac.new(key.encode(), b"agent-jobs page", sha256).digest()


class Access(ABC):
    """Signs browsers in, and recognises them and their forms.

    Args:
        secret: Signs links and cookies.
        now: The time, in epoch seconds.
    """

    #: Sentence for a browser that is not signed in.
    advice: ClassVar[str]
    #: Sentence for a browser whose link or token is refused.
    refusal: ClassVar[str]
    #: True if a browser signs in by a form with a token.
    has_form: ClassVar[bool]
    #: True if the visitors are not the user of this machine: they must not see its paths and addresses.
    hides_machine: ClassVar[bool]

    def __init__(self, secret: bytes, now: Callable[[], float]) -> None:
        self._secret = secret
        self._now = now

    @abstractmethod
    async def sign_in(self, token: str, address: str = "") -> str | None:
        """Return the cookie of a new session for a token; None if the token is wrong.

        `address` is the address of the browser.
        """

    @abstractmethod
    async def find_session(self, cookie: str) -> BrowserSession | None:
        """Return the session of a cookie; None if it is wrong, or has ended."""

    @abstractmethod
    async def record_sign_out(self, session: BrowserSession, address: str) -> None:
        """Record that a browser signed out, if this is a server with several users."""

    def form_token(self, session: str) -> str:
        """Return the token that each form of a session carries, so that no other page can send one."""
        return self._compute_digest(f"form:{session}")

    def is_form_token(self, session: str, token: str) -> bool:
        """Return True if a form belongs to this session."""
        return hmac.compare_digest(self.form_token(session).encode(), token.encode())

    def _sign_token(self, kind: str, lifetime_s: float, subject: str = "") -> str:
        body = f"{subject}{token_urlsafe(18)}.{int(self._now() + lifetime_s)}"
        return f"{body}.{self._compute_digest(f'{kind}:{body}')}"

    def _is_signed(self, kind: str, token: str) -> bool:
        body, _, digest = token.rpartition(".")
        if not hmac.compare_digest(self._compute_digest(f"{kind}:{body}").encode(), digest.encode()):
            return False
        return int(body.rpartition(".")[2]) > self._now()

    def _compute_digest(self, text: str) -> str:
        return hmac.new(self._secret, text.encode("utf-8", "replace"), sha256).hexdigest()


class LinkAccess(Access):
    """Signs in a browser that opens a link which this machine's user asked for."""

    advice = (
        "This page shows the jobs of the user who started it. Run `agent-jobs ui` in a terminal: it prints a link that "
        "signs this browser in."
    )
    refusal = "This link was used before, or is older than ten minutes. Run `agent-jobs ui` again for another one."
    has_form = False
    hides_machine = False

    def __init__(self, secret: bytes, now: Callable[[], float]) -> None:
        super().__init__(secret, now)
        self._used_links: set[str] = set()

    def create_link_token(self) -> str:
        """Return a token that signs in one browser."""
        return self._sign_token("link", LINK_S)

    async def sign_in(self, token: str, address: str = "") -> str | None:
        """Return a session for a link's token; None if it is wrong, too old, or was used before."""
        if not self._is_signed("link", token) or token in self._used_links:
            return None
        self._used_links.add(token)
        return self._sign_token("session", SESSION_S)

    async def find_session(self, cookie: str) -> BrowserSession | None:
        """Return the session of a cookie that was signed here and has not ended."""
        if not self._is_signed("session", cookie):
            return None
        return BrowserSession(cookie)

    async def record_sign_out(self, session: BrowserSession, address: str) -> None:
        """Record nothing: a machine has one user."""


class TokenAccess(Access):
    """Signs in a user of a team server, whose browser then sees that user's jobs.

    The cookie holds the hash of the token, so that a session ends with its token.

    Args:
        secret: Signs cookies; the same in all processes of the server.
        now: The time, in epoch seconds.
        find_owner: Finds the owner of a token by its hash, at each request.
        report_refused: Gets the address of each browser that sent a wrong token.
        record_visit: Records each user that signs in or out.
    """

    advice = "Sign in with your team token. Ask the operator of this server for one."
    refusal = "Unknown or expired token."
    has_form = True
    hides_machine = True

    def __init__(
        self,
        secret: bytes,
        now: Callable[[], float],
        find_owner: FindOwner,
        report_refused: Callable[[str], Awaitable[object]],
        record_visit: RecordVisit,
    ) -> None:
        super().__init__(secret, now)
        self._find_owner = find_owner
        self._report_refused = report_refused
        self._record_visit = record_visit

    async def sign_in(self, token: str, address: str = "") -> str | None:
        """Return a session for a team token; None if it has no owner."""
        token_hash = hash_token(token.strip())
        user = await self._find_owner(token_hash)
        if user is None:
            await self._report_refused(address)
            return None
        await self._record_visit(user, "signed in", address)
        return self._sign_token("session", SESSION_S, f"{token_hash}.")

    async def find_session(self, cookie: str) -> BrowserSession | None:
        """Return the session of a cookie that was signed here and whose token still has an owner."""
        if not self._is_signed("session", cookie):
            return None
        found = await self._find_owner(cookie.partition(".")[0])
        if found is None:
            return None
        return BrowserSession(cookie, found.owner, found.token_id)

    async def record_sign_out(self, session: BrowserSession, address: str) -> None:
        """Record that a user signed out."""
        if session.owner:
            await self._record_visit(TokenOwner(session.owner, session.token_id), "signed out", address)
