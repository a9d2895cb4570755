"""Cache the public keys of an authorization server, and fetch them again when they change."""

import logging
from collections.abc import Mapping
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
import jwt

from agent_jobs.jobs.response import items_of, mapping_of, string_of
from agent_jobs.team_server.sign_in import CannotVerifyError

logger = logging.getLogger(__name__)

#: Seconds after which keys are fetched again: one that the issuer withdrew is accepted no longer.
KEYS_S = 300.0
#: Fetches for unknown keys that are allowed at once, and the seconds until one more is: anyone can name unknown keys.
EXTRA_FETCHES = 3
EXTRA_FETCH_S = 30.0
#: Kinds of keys whose owner alone can sign.
PUBLIC_KINDS = frozenset({"RSA", "EC", "OKP"})
#: Where servers publish their metadata, before and after the path of the issuer (RFC 8414, OpenID Connect).
METADATA_PATHS = (
    "/.well-known/oauth-authorization-server{path}",
    "/.well-known/openid-configuration{path}",
    "{path}/.well-known/openid-configuration",
)


class IssuerKeys:
    """The keys of one issuer.

    Args:
        issuer: The issuer.
        url: Where its keys are; None reads that from its metadata.
        http: Fetches them.
    """

    def __init__(self, issuer: str, url: str | None, http: httpx2.AsyncClient) -> None:
        self._issuer = issuer
        self._url = url
        self._http = http
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched_at = -KEYS_S
        self._extra_fetches = float(EXTRA_FETCHES)
        self._lock = anyio.Lock()

    async def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key of this id; that of a token without one if the issuer has a single key.

        Raises:
            CannotVerifyError: No keys are known, and they cannot be fetched.
        """
        async with self._lock:
            age_s = monotonic() - self._fetched_at
            if age_s >= KEYS_S or (self._find_kept_key(key_id) is None and self._may_fetch_again()):
                await self._fetch()
            return self._find_kept_key(key_id)

    def _find_kept_key(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _may_fetch_again(self) -> bool:
        refilled = (monotonic() - self._fetched_at) / EXTRA_FETCH_S
        self._extra_fetches = min(float(EXTRA_FETCHES), self._extra_fetches + refilled)
        if self._extra_fetches < 1:
            return False
        self._extra_fetches -= 1
        return True

    async def _fetch(self) -> None:
        self._fetched_at = monotonic()
        try:
            self._url = self._url or await self._find_url()
            self._keys = _read_key_set(await self._get_json(self._url))
        except (httpx2.HTTPError, jwt.PyJWTError, ValueError) as error:
            logger.warning("cannot fetch the keys of %s: %s", self._issuer, type(error).__name__)
            if not self._keys:
                self._fetched_at = -KEYS_S  # the next request tries again
                raise CannotVerifyError("the issuer's keys cannot be fetched") from None

    async def _find_url(self) -> str:
        """Return the address of the keys from the first metadata that is there and is the issuer's own."""
        parts = urlsplit(self._issuer)
        for template in METADATA_PATHS:
            path = template.format(path=parts.path.rstrip("/"))
            answer = await self._http.get(f"{parts.scheme}://{parts.netloc}{path}")
            if answer.is_success and (url := _read_keys_url(answer.json(), self._issuer)):
                return url
        raise ValueError("no metadata")

    async def _get_json(self, url: str) -> Any:
        return (await self._http.get(url)).raise_for_status().json()


def _read_keys_url(metadata: Any, issuer: str) -> str:
    """Return where an issuer's metadata says that its keys are; empty if it is another's."""
    values = mapping_of(metadata)
    if values.get("issuer") != issuer:
        return ""
    return str(values.get("jwks_uri", ""))


def _read_key_set(published: Any) -> Mapping[str | None, jwt.PyJWK]:
    """Return the usable keys of a JWK set by their ids; keys of an unknown form are skipped."""
    key_set = mapping_of(published)
    if not isinstance(key_set.get("keys"), list):
        raise ValueError("no JWK set")
    keys: dict[str | None, jwt.PyJWK] = {}
    for each in items_of(key_set["keys"]):
        if string_of(each.get("kty")) not in PUBLIC_KINDS or each.get("use", "sig") != "sig":
            continue
        try:
            keys[string_of(each.get("kid")) or None] = jwt.PyJWK(dict(each))
        except jwt.PyJWTError as error:
            logger.info("a published key cannot be used: %s", type(error).__name__)
    return keys
