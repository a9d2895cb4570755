# pyright: basic
# Authlib has no types.
"""A real OAuth authorization server on loopback, made of Authlib: signed tokens, published keys, introspection."""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request, TokenMixin, grants
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SECRET = "s3cret/of:a@client"
#: Makes a key for each algorithm.
MAKERS: dict[str, Callable[[Any], Any]] = {
    "RS256": lambda options: RSAKey.generate_key(2048, options),
    "ES256": lambda options: ECKey.generate_key("P-256", options),
    "EdDSA": lambda options: OKPKey.generate_key("Ed25519", options),
}


@dataclass
class RegisteredClient(ClientMixin):
    """A client, which also stands for its user."""

    name: str

    def get_client_id(self) -> str:
        return self.name

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in ("client_secret_basic", "client_secret_post")

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"


@dataclass
class IssuedToken(TokenMixin):
    """A token that was issued, with its claims."""

    text: str
    claims: dict[str, Any]
    is_withdrawn: bool = False

    def check_client(self, client: Any) -> bool:
        return True

    def get_scope(self) -> str:
        return self.claims["scope"]

    def is_expired(self) -> bool:
        return self.claims["exp"] < time.time()

    def is_revoked(self) -> bool:
        return self.is_withdrawn


class FormRequest(OAuth2Request):
    payload: Any

    @property
    def form(self) -> dict[str, str]:
        return self.payload.data

    @property
    def args(self) -> dict[str, str]:
        return {}


class Issuer(AuthorizationServer):
    """The server: its keys, its tokens and its HTTP endpoints."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.tokens: dict[str, IssuedToken] = {}
        self.key_requests = 0
        self.odd_keys: list[object] = []  #: published beside the key
        self.resource = ""
        self.alg = "ES256"
        self._generator = self._create_generator()
        self.rotate()
        self.register_grant(grants.ClientCredentialsGrant)
        self.register_endpoint(_Introspection)
        self.register_endpoint(_Revocation)
        self.register_token_generator("default", self._generator)

    def rotate(self, alg: str = "ES256") -> None:
        """Publish a new key in place of the old one."""
        self.alg = self._generator.alg = alg
        self.key: Any = MAKERS[alg]({"kid": f"key-{time.monotonic_ns()}", "use": "sig", "alg": alg})

    def make_token(self, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a signed token with claims that its own endpoint would not give; None leaves one out."""
        key = key or self.key
        given = {"iss": self.url, "sub": "alice", "client_id": "cli", "scope": "jobs", "exp": int(time.time()) + 600}
        kept = {name: value for name, value in {**given, **claims}.items() if value is not None}
        head = {"alg": self.alg, "kid": key.kid, "typ": "at+jwt", **(header or {})}
        return jwt.encode(head, kept, key, algorithms=[head["alg"]])

    def public_pem(self) -> bytes:
        return self.key.as_pem(private=False)

    # What Authlib asks of a framework.

    def query_client(self, client_id: str) -> RegisteredClient:
        return RegisteredClient(client_id)

    def save_token(self, token: dict[str, Any], request: Any) -> None:
        text = token["access_token"]
        claims = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
        self.tokens[text] = IssuedToken(text, claims)

    def create_oauth2_request(self, request: Any) -> FormRequest:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> Response:
        return JSONResponse(body, status, dict(headers))

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        pass

    def _create_generator(self) -> JWTBearerTokenGenerator:
        issuer = self

        class Generator(JWTBearerTokenGenerator):
            def get_jwks(self) -> Any:
                return issuer.key

            def get_audiences(self, client: Any, user: Any, scope: Any) -> str:
                return issuer.resource

        return Generator(self.url)

    # HTTP

    def build_app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/oauth-authorization-server", self._send_metadata),
                Route("/keys", self._send_keys),
                Route("/token", self._send_token, methods=["POST"]),
                Route("/introspect", self._introspect, methods=["POST"]),
                Route("/revoke", self._revoke, methods=["POST"]),
            ]
        )

    async def _send_metadata(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "token_endpoint": f"{self.url}/token",
                "authorization_endpoint": f"{self.url}/authorize",
                "response_types_supported": ["code"],
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                "code_challenge_methods_supported": ["S256"],
            }
        )

    async def _send_keys(self, _: Request) -> Response:
        self.key_requests += 1
        return JSONResponse({"keys": [*self.odd_keys, self.key.as_dict(private=False)]})

    async def _send_token(self, request: Request) -> Response:
        form = await _read_form(request)
        self.resource = form.payload.data.get("resource", "")
        response: Any = self.create_token_response(form)
        return response

    async def _introspect(self, request: Request) -> Response:
        return self.create_endpoint_response("introspection", await _read_form(request))

    async def _revoke(self, request: Request) -> Response:
        return self.create_endpoint_response("revocation", await _read_form(request))


async def _read_form(request: Request) -> FormRequest:
    form = FormRequest(request.method, str(request.url.replace(scheme="https")), headers=request.headers)
    form.payload = BasicOAuth2Payload(dict(parse_qsl((await request.body()).decode())))
    return form


class _Introspection(IntrospectionEndpoint):
    def check_permission(self, token: Any, client: Any, request: Any) -> bool:
        return client.name == "agent-jobs"

    def query_token(self, token_string: str, token_type_hint: str) -> IssuedToken | None:
        return self.server.tokens.get(token_string)

    def introspect_token(self, token: IssuedToken) -> dict[str, Any]:
        return {"active": True, **token.claims}


class _Revocation(RevocationEndpoint):
    def query_token(self, token_string: str, token_type_hint: str) -> IssuedToken | None:
        return self.server.tokens.get(token_string)

    def revoke_token(self, token: IssuedToken, request: Any) -> None:
        token.is_withdrawn = True


@contextmanager
def running_issuer() -> Generator[Issuer]:
    """Serve an authorization server from a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        issuer = Issuer(f"http://127.0.0.1:{listener.getsockname()[1]}")
        config = uvicorn.Config(issuer.build_app(), lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield issuer
        finally:
            server.should_exit = True
            thread.join(60)
