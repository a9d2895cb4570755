"""Authenticate callers by access tokens of an OAuth 2.1 server: signed JWTs, or any tokens by introspection."""

from collections.abc import Mapping, Set
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx2
import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_jobs.errors import ConfigError
from agent_jobs.jobs.response import string_of
from agent_jobs.owner_name import is_owner_name
from agent_jobs.settings.settings import Settings
from agent_jobs.team_server.caller import Caller
from agent_jobs.team_server.issuer_keys import IssuerKeys
from agent_jobs.team_server.sign_in import MAX_CLIENT_CHARS, CannotVerifyError, RefusedTokenError

SCOPE = "jobs"
#: Where a client that knows this server alone finds its authorization server.
RESOURCE_PATH = "/.well-known/oauth-protected-resource"
#: Signatures by a key that only the issuer has. With HS256, every verifier could also sign.
ALGORITHMS = ("RS256", "ES256", "EdDSA")
#: Seconds by which clocks may differ.
LEEWAY_S = 30
#: Seconds for an answer of the authorization server.
ISSUER_TIMEOUT_S = 5.0
#: Reasons for the audit log, by the error of the library; the first that fits.
_REASONS: Mapping[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "expired",
    jwt.ImmatureSignatureError: "not yet valid",
    jwt.InvalidAudienceError: "other audience",
    jwt.InvalidIssuerError: "other issuer",
    jwt.MissingRequiredClaimError: "incomplete",
    jwt.InvalidAlgorithmError: "algorithm",
    jwt.InvalidSignatureError: "signature",
}


class Resource(NamedTuple):
    """The server as a resource of OAuth."""

    url: str  #: the audience of tokens (RFC 8707)
    issuer: str
    owner_claim: str

    def read_caller(self, claims: Mapping[str, Any]) -> Caller:
        """Return the caller that checked claims describe. An owner is an issuer and its subject.

        Raises:
            RefusedTokenError: They name no owner, or lack the scope.
        """
        owner = self._read_owner(claims)
        if SCOPE not in _read_scopes(claims):
            raise RefusedTokenError("wrong scope", owner=owner, token_id=self.issuer, lacks_scope=True)
        client = str(claims.get("client_id") or claims.get("azp") or "")
        return Caller(owner, self.issuer, client[:MAX_CLIENT_CHARS])

    def _read_owner(self, claims: Mapping[str, Any]) -> str:
        """Return the owner that claims name."""
        subject = string_of(claims.get(self.owner_claim))
        if not subject:
            raise RefusedTokenError(f"no {self.owner_claim}", token_id=self.issuer)
        owner = f"{self.issuer}#{subject}"
        if not (is_owner_name(subject) and is_owner_name(owner)):
            raise RefusedTokenError(f"{self.owner_claim} is no name", token_id=self.issuer)
        return owner

    def describe(self) -> dict[str, Any]:
        """Return the metadata that leads a client to the authorization server (RFC 9728)."""
        return {
            "resource": self.url,
            "authorization_servers": [self.issuer],
            "scopes_supported": [SCOPE],
            "bearer_methods_supported": ["header"],
            "resource_name": "agent-jobs",
        }


class SignedTokens:
    """Access tokens as JWTs, which the issuer's published keys verify."""

    def __init__(self, resource: Resource, keys: IssuerKeys) -> None:
        self._resource = resource
        self._keys = keys

    def can_verify(self, token: str) -> bool:
        """Return True: any text that is not a team token may be one of these."""
        return True

    async def verify(self, token: str) -> Caller:
        """Return the caller with this token.

        Raises:
            RefusedTokenError: It is not the issuer's, not for this server, or not valid now.
            CannotVerifyError: The issuer does not publish its keys now.
        """
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise RefusedTokenError("no JWT") from None
        if header.get("alg") not in ALGORITHMS:
            raise RefusedTokenError("algorithm")
        key = await self._keys.find(header.get("kid"))
        if key is None:
            raise RefusedTokenError("unknown key")
        return self._resource.read_caller(self._decode_claims(token, key))

    def _decode_claims(self, token: str, key: jwt.PyJWK) -> Mapping[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=[self._resource.url, f"{self._resource.url}/"],
                issuer=self._resource.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            reasons = (reason for kind, reason in _REASONS.items() if isinstance(error, kind))
            raise RefusedTokenError(next(reasons, "malformed"), token_id=self._resource.issuer) from None


class IntrospectedTokens:
    """Access tokens that the authorization server judges at each request (RFC 7662): a revoked one ends at once.

    Args:
        resource: This server.
        url: The introspection endpoint, with the name and the secret of this server in it.
        http: Sends the questions.
    """

    def __init__(self, resource: Resource, url: str, http: httpx2.AsyncClient) -> None:
        self._resource = resource
        self._url, self._credentials = _split_credentials(url)
        self._http = http

    def can_verify(self, token: str) -> bool:
        """Return True: any text that is not a team token may be one of these."""
        return True

    async def verify(self, token: str) -> Caller:
        """Return the caller with this token.

        Raises:
            RefusedTokenError: The authorization server refuses the token, or it is not for this server.
            CannotVerifyError: It does not answer.
        """
        claims = await self._introspect(token)
        if claims.get("active") is not True:
            raise RefusedTokenError("not active", token_id=self._resource.issuer)
        if claims.get("iss", self._resource.issuer) != self._resource.issuer:
            raise RefusedTokenError("other issuer")
        if _list_audiences(claims).isdisjoint((self._resource.url, f"{self._resource.url}/")):
            raise RefusedTokenError("other audience", token_id=self._resource.issuer)
        return self._resource.read_caller(claims)

    async def _introspect(self, token: str) -> Mapping[str, Any]:
        question = {"token": token, "token_type_hint": "access_token"}
        try:
            answer = await self._http.post(self._url, data=question, auth=self._credentials)
            claims: Any = answer.raise_for_status().json()
        except (httpx2.HTTPError, ValueError) as error:
            raise CannotVerifyError(f"introspection failed: {type(error).__name__}") from None
        if not isinstance(claims, dict):
            raise CannotVerifyError("introspection did not answer with an object")
        return cast("dict[str, Any]", claims)


def find_resource(settings: Settings, url: str) -> Resource | None:
    """Return this server as a resource of an authorization server; None if none is set.

    Raises:
        ConfigError: The settings of OAuth do not fit together.
    """
    if settings.oauth_issuer is None:
        names = {
            "AGENT_JOBS_OAUTH_JWKS_URL": settings.oauth_jwks_url,
            "AGENT_JOBS_OAUTH_INTROSPECTION_URL": settings.oauth_introspection_url,
        }
        alone = next((name for name, value in names.items() if value is not None), None)
        if alone is not None:
            raise ConfigError(f"{alone} is set without AGENT_JOBS_OAUTH_ISSUER. Set both, or remove it.")
        return None
    return Resource(url, settings.oauth_issuer, settings.owner_claim)


def create_verifier(
    settings: Settings, resource: Resource, http: httpx2.AsyncClient
) -> SignedTokens | IntrospectedTokens:
    """Return what verifies the tokens of the authorization server."""
    if settings.oauth_introspection_url is not None:
        return IntrospectedTokens(resource, settings.oauth_introspection_url.get_secret_value(), http)
    return SignedTokens(resource, IssuerKeys(resource.issuer, settings.oauth_jwks_url, http))


def build_resource_routes(resource: Resource) -> list[Route]:
    """Return the routes of the metadata of this server, which clients read before they have a token."""

    async def send_metadata(request: Request) -> Response:
        return JSONResponse(resource.describe(), headers={"Cache-Control": "public, max-age=3600"})

    path = urlsplit(resource.url).path
    return [Route(f"{RESOURCE_PATH}{path}", send_metadata), Route(RESOURCE_PATH, send_metadata)]


def create_issuer_client() -> httpx2.AsyncClient:
    """Return the HTTP client for the authorization server. A redirect could lead a secret or a question elsewhere."""
    return httpx2.AsyncClient(timeout=ISSUER_TIMEOUT_S, follow_redirects=False)


def _read_scopes(claims: Mapping[str, Any]) -> Set[str]:
    """Return the scopes of a token: OAuth writes one text, some servers a list in `scp`."""
    match claims.get("scope", claims.get("scp", "")):
        case [*scopes]:
            return set(map(str, scopes))
        case scopes:
            return set(str(scopes).split())


def _list_audiences(claims: Mapping[str, Any]) -> Set[str]:
    """Return the audiences of a token: one text, or a list of them."""
    match claims.get("aud"):
        case [*audiences]:
            return set(map(str, audiences))
        case audience:
            return {str(audience)}


def _split_credentials(url: str) -> tuple[str, httpx2.Auth]:
    """Return an address without the name and secret in it, and what sends these."""
    parts = urlsplit(url)
    if parts.username is None:
        return url, httpx2.Auth()
    host = parts.netloc.rpartition("@")[2]
    auth = httpx2.BasicAuth(unquote(parts.username), unquote(parts.password or ""))
    return urlunsplit(parts._replace(netloc=host)), auth
