"""Let one user into the page: a link that works once becomes a cookie, and a form carries a token of that cookie.

Nothing here is stored but one secret. A link and a cookie carry their own expiry, signed with it.
"""

import hmac
import os
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes, token_urlsafe

#: A link is opened at once, by the user who asked for it.
LINK_S = 600
#: A browser stays signed in this long.
SESSION_S = 30 * 86_400
#: Bytes of the secret that signs links and cookies.
SECRET_BYTES = 32
#: File of that secret, in the folder of the database.
SECRET_FILE = "page.key"


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


class LinkAccess:
    """Signs in whoever opens a link that this machine's user asked for.

    Args:
        secret: Signs links and cookies.
        now: The time, in epoch seconds.
    """

    def __init__(self, secret: bytes, now: Callable[[], float]) -> None:
        self._secret = secret
        self._now = now
        self._used_links: set[str] = set()

    def create_link_token(self) -> str:
        """Return a token that signs in one browser."""
        return self._sign_token("link", LINK_S)

    def redeem_link(self, token: str) -> str | None:
        """Return a session for a link's token; None if it is wrong, too old, or was used before."""
        if not self._is_signed("link", token) or token in self._used_links:
            return None
        self._used_links.add(token)
        return self._sign_token("session", SESSION_S)

    def is_session(self, session: str) -> bool:
        """Return True if a cookie's value is a session that has not ended."""
        return self._is_signed("session", session)

    def form_token(self, session: str) -> str:
        """Return the token that each form of a session carries, so that no other page can send one."""
        return self._compute_digest(f"form:{session}")

    def is_form_token(self, session: str, token: str) -> bool:
        """Return True if a form belongs to this session."""
        return hmac.compare_digest(self.form_token(session).encode(), token.encode())

    def _sign_token(self, kind: str, lifetime_s: float) -> str:
        body = f"{token_urlsafe(18)}.{int(self._now() + lifetime_s)}"
        return f"{body}.{self._compute_digest(f'{kind}:{body}')}"

    def _is_signed(self, kind: str, token: str) -> bool:
        body, _, digest = token.rpartition(".")
        if not hmac.compare_digest(self._compute_digest(f"{kind}:{body}").encode(), digest.encode()):
            return False
        return int(body.rpartition(".")[2]) > self._now()

    def _compute_digest(self, text: str) -> str:
        return hmac.new(self._secret, text.encode("utf-8", "replace"), sha256).hexdigest()
