"""Make the tokens of a team server, and recognise them. A token is shown once; only its hash is stored."""

from hashlib import sha256
from secrets import token_urlsafe
from typing import NamedTuple

#: A leaked token is recognised by it, by people and by scanners of repositories.
TOKEN_PREFIX = "ajt_"
#: With as many random bytes a plain hash is enough, and a look-up by it shows nothing by its time.
TOKEN_BYTES = 32
#: Characters of the hash that are the token's id: enough to be unique, and too few to be of use.
ID_CHARS = 12


class NewToken(NamedTuple):
    """A token that was just made."""

    text: str  #: for its user; never stored
    id: str
    hash: str


def create_token() -> NewToken:
    """Return a new token."""
    text = f"{TOKEN_PREFIX}{token_urlsafe(TOKEN_BYTES)}"
    digest = hash_token(text)
    return NewToken(text, f"tok_{digest[:ID_CHARS]}", digest)


def hash_token(text: str) -> str:
    """Return the hash by which a token is looked up."""
    return sha256(text.encode("utf-8", "replace")).hexdigest()
