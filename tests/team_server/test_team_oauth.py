"""The team server as an OAuth resource server, with a real authorization server beside it."""

import base64
import hmac
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from authorization_server import MAKERS, SECRET, Issuer, running_issuer
from mcp import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from team_servers import Team, serving_team
from test_team_http import ACCEPT, LIST_TOOLS

from agent_jobs.errors import ConfigError
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr
from agent_jobs.team_server import audit, issuer_keys
from agent_jobs.team_server.oauth import RESOURCE_PATH, build_resource_routes, find_resource
from agent_jobs.team_server.server import describe_address, open_team_server


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def fresh_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch the keys at each request, as if the stored ones were old, and log each refusal."""
    monkeypatch.setattr(issuer_keys, "KEYS_S", 0.0)
    monkeypatch.setattr(audit, "MAX_REFUSED_A_MINUTE", 1000)


@pytest.fixture(scope="module")
async def signed(team_settings: Settings, issuer: Issuer, anyio_backend: str) -> AsyncGenerator[Team]:
    """Run a team server that verifies tokens by the issuer's keys."""
    async with serving_team(replace(team_settings, oauth_issuer=issuer.url)) as team:
        yield team


async def ask(team: Team, token: str) -> httpx2.Response:
    async with team.http(token) as http:
        return await http.post("/mcp", json=LIST_TOOLS, headers=ACCEPT)


async def read_last_refusal(team: Team) -> Any:
    return (await team.server.engine.owners.read_log())[-1][1]


@pytest.mark.usefixtures("fresh_keys")
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize("alg", ["RS256", "EdDSA", "ES256"])
async def test_signed_token_lets_its_owner_in(signed: Team, issuer: Issuer, alg: str):
    issuer.rotate(alg)
    token = issuer.make_token(aud=f"{signed.url}/mcp", sub="alice")
    async with signed.host(token) as host:
        started = await host.start(emulate={"end": "never"})
        await host.call("agent_cancel", job_id=started["job_id"])
    owner = f"{issuer.url}#alice"
    entries = [entry for _, entry in await signed.server.engine.owners.read_log(owner=owner)]
    assert (entries[-1].action, entries[-1].token_id) == ("cancel", issuer.url)
    async with signed.host(await signed.add_token("alice")) as other:
        assert "There is no job" in await other.refused("agent_poll", job_id=started["job_id"])


def encode(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def build_claims(team: Team, issuer: Issuer) -> dict[str, Any]:
    exp = int(time.time()) + 600
    return {"iss": issuer.url, "sub": "alice", "scope": "jobs", "aud": f"{team.url}/mcp", "exp": exp}


def make_unsigned(team: Team, issuer: Issuer) -> str:
    return f"{encode({'alg': 'none'})}.{encode(build_claims(team, issuer))}."


def make_symmetric(team: Team, issuer: Issuer) -> str:
    """Return a token that is signed with the public key, as if the key were a secret."""
    signed = f"{encode({'alg': 'HS256', 'kid': issuer.key.kid})}.{encode(build_claims(team, issuer))}"
    digest = hmac.new(issuer.public_pem(), signed.encode(), sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def make_with_other_key(team: Team, issuer: Issuer) -> str:
    """Return a token that names the issuer's key, and is signed by another one."""
    key = MAKERS[issuer.alg]({"kid": issuer.key.kid})
    return issuer.make_token(key, aud=f"{team.url}/mcp")


def make_with_unknown_key(team: Team, issuer: Issuer) -> str:
    return issuer.make_token(MAKERS[issuer.alg]({"kid": "unknown"}), aud=f"{team.url}/mcp")


def make_with_embedded_key(team: Team, issuer: Issuer) -> str:
    """Return a token that brings its own key along."""
    key = MAKERS[issuer.alg]({"kid": "mine"})
    header = {"jwk": key.as_dict(private=False), "jku": "http://127.0.0.1:9/keys"}
    signed = issuer.make_token(key, aud=f"{team.url}/mcp").split(".")
    return ".".join([encode({"alg": issuer.alg, "kid": "mine", **header}), *signed[1:]])


def make_changed(team: Team, issuer: Issuer) -> str:
    """Return a token whose subject was changed after it was signed."""
    head, _, signature = issuer.make_token(aud=f"{team.url}/mcp").split(".")
    return ".".join([head, encode({**build_claims(team, issuer), "sub": "bob"}), signature])


def make_token(**given: Any) -> Callable[[Team, Issuer], str]:
    return lambda team, issuer: issuer.make_token(None, None, **{"aud": f"{team.url}/mcp", **given})


#: Tokens get their dates when the tests are collected, which may be half an hour before a test uses them.
DAY_S = 86_400

HOSTILE: dict[str, tuple[Callable[[Team, Issuer], str], int, str]] = {
    "expired": (make_token(exp=int(time.time()) - DAY_S), 401, "expired"),
    "not yet valid": (make_token(nbf=int(time.time()) + DAY_S), 401, "not yet valid"),
    "issued in the future": (make_token(iat=int(time.time()) + DAY_S), 401, "not yet valid"),
    "other audience": (make_token(aud="https://other.example/mcp"), 401, "other audience"),
    "audience of the whole host": (lambda team, issuer: issuer.make_token(aud=team.url), 401, "other audience"),
    "other issuer": (make_token(iss="https://other.example"), 401, "other issuer"),
    "without expiry": (make_token(exp=None), 401, "incomplete"),
    "without audience": (make_token(aud=None), 401, "incomplete"),
    "without subject": (make_token(sub=None), 401, "no sub"),
    "subject of spaces": (make_token(sub=" "), 401, "sub is no name"),
    "subject of dots": (make_token(sub=".."), 401, "sub is no name"),
    "subject of two lines": (make_token(sub="alice\nbob"), 401, "sub is no name"),
    "subject that looks like another": (make_token(sub="jose\u0301"), 401, "sub is no name"),
    "endless subject": (make_token(sub="a" * 600), 401, "sub is no name"),
    "empty subject": (make_token(sub=""), 401, "no sub"),
    "algorithm none": (make_unsigned, 401, "algorithm"),
    "HS256 with the public key": (make_symmetric, 401, "algorithm"),
    "signed by another key": (make_with_other_key, 401, "signature"),
    "unknown key": (make_with_unknown_key, 401, "unknown key"),
    "own key": (make_with_embedded_key, 401, "unknown key"),
    "changed": (make_changed, 401, "signature"),
    "wrong scope": (make_token(scope="mail jobs.read"), 403, "wrong scope"),
    "without scope": (make_token(scope=None), 403, "wrong scope"),
    "garbled": (lambda team, issuer: "e30.e30.e30", 401, "algorithm"),
    "no JWT": (lambda team, issuer: "opaque", 401, "no JWT"),
    "huge": (lambda team, issuer: issuer.make_token(aud=f"{team.url}/mcp", note="x" * 9000), 401, "too long"),
}


@pytest.mark.usefixtures("fresh_keys")
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_token_is_refused(signed: Team, issuer: Issuer, name: str):
    make, status, reason = HOSTILE[name]
    answer = await ask(signed, make(signed, issuer))
    assert answer.status_code == status
    code = {401: "invalid_token", 403: "insufficient_scope"}[status]
    metadata = f"{signed.url}/.well-known/oauth-protected-resource/mcp"
    challenge = answer.headers["www-authenticate"]
    assert challenge == f'Bearer error="{code}", resource_metadata="{metadata}", scope="jobs"'
    assert (await read_last_refusal(signed)).action == f"refused: {reason}"


async def test_rotated_key_is_fetched_and_the_old_one_refused(signed: Team, issuer: Issuer):
    issuer.rotate()
    old = issuer.make_token(aud=f"{signed.url}/mcp")
    assert (await ask(signed, old)).status_code == 200
    issuer.rotate()
    new = issuer.make_token(aud=f"{signed.url}/mcp")
    assert (await ask(signed, new)).status_code == 200
    assert (await ask(signed, old)).status_code == 401


@pytest.mark.usefixtures("fresh_keys")
async def test_published_keys_of_an_unknown_form_are_skipped(
    signed: Team, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
):
    odd_numbers: list[object] = [{"kty": "RSA", "n": 5, "e": []}, {"kty": "EC", "crv": {}, "x": 1, "y": None}]
    odd_keys: list[object] = [
        None,
        5,
        "key",
        [],
        {},
        {"kty": "RSA"},
        {"kty": ["RSA"]},
        {"kty": "EC", "kid": []},
        *odd_numbers,
    ]
    monkeypatch.setattr(issuer, "odd_keys", odd_keys)
    issuer.rotate()
    assert (await ask(signed, issuer.make_token(aud=f"{signed.url}/mcp"))).status_code == 200


async def test_unknown_keys_do_not_make_this_server_attack_the_issuer(signed: Team, issuer: Issuer):
    before, token = issuer.key_requests, make_with_unknown_key(signed, issuer)
    for _ in range(12):
        assert (await ask(signed, token)).status_code == 401
    assert issuer.key_requests - before <= 6


async def test_metadata_leads_to_the_issuer_without_a_token(signed: Team, issuer: Issuer):
    async with signed.http() as http:
        for path in ("/mcp", ""):
            answer = await http.get(f"/.well-known/oauth-protected-resource{path}")
            assert answer.json() == {
                "resource": f"{signed.url}/mcp",
                "authorization_servers": [issuer.url],
                "scopes_supported": ["jobs"],
                "bearer_methods_supported": ["header"],
                "resource_name": "agent-jobs",
            }
        assert (await http.get("/.well-known/other")).status_code == 401
        challenge = (await http.post("/mcp", json=LIST_TOOLS)).headers["www-authenticate"]
    assert challenge.startswith("Bearer resource_metadata=")


@pytest.mark.usefixtures("fresh_keys")
async def test_client_signs_in_by_itself(signed: Team, issuer: Issuer):
    """The SDK's client finds the issuer, gets a token for this server and calls a tool, knowing only the address."""
    issuer.rotate()
    provider = ClientCredentialsOAuthProvider(
        server_url=f"{signed.url}/mcp",
        storage=Storage(),
        client_id="robot",
        client_secret=SECRET,
        scope="jobs",
        issuer=issuer.url,
    )
    async with (
        httpx2.AsyncClient(auth=provider, timeout=60) as http,
        Client(streamable_http_client(f"{signed.url}/mcp", http_client=http)) as client,
    ):
        assert not (await client.call_tool("agent_list", {})).is_error


class Storage:
    """A store that keeps a client's token while the client runs."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    async def get_tokens(self) -> Any:
        return self._kept.get("tokens")

    async def set_tokens(self, tokens: Any) -> None:
        self._kept["tokens"] = tokens

    async def get_client_info(self) -> Any:
        return self._kept.get("client")

    async def set_client_info(self, client_info: Any) -> None:
        self._kept["client"] = client_info


async def get_token(issuer: Issuer, resource: str, scope: str = "jobs") -> str:
    async with httpx2.AsyncClient(auth=("robot", SECRET)) as http:
        form = {"grant_type": "client_credentials", "scope": scope, "resource": resource}
        return (await http.post(f"{issuer.url}/token", data=form)).json()["access_token"]


async def test_introspection_judges_each_token(team_settings: Settings, issuer: Issuer, tmp_path: Path):
    issuer.rotate()
    url = issuer.url.replace("http://", f"http://agent-jobs:{quote(SECRET, safe='')}@")
    introspection = SecretStr(f"{url}/introspect")
    settings = replace(team_settings, data_dir=tmp_path, oauth_issuer=issuer.url, oauth_introspection_url=introspection)
    async with serving_team(settings) as team:
        resource = f"{team.url}/mcp"
        good, other = await get_token(issuer, resource), await get_token(issuer, "https://other.example/mcp")
        assert (await ask(team, good)).status_code == 200
        assert (await ask(team, other)).status_code == 401
        assert (await ask(team, await get_token(issuer, resource, scope="mail"))).status_code == 403
        assert (await ask(team, issuer.make_token(aud=resource))).status_code == 401, "it was never issued"
        async with httpx2.AsyncClient(auth=("robot", SECRET)) as http:
            await http.post(f"{issuer.url}/revoke", data={"token": good})
        assert (await ask(team, good)).status_code == 401
        assert (await read_last_refusal(team)).action == "refused: not active"


async def test_silent_issuer_is_not_reported_as_a_refusal(team_settings: Settings, tmp_path: Path):
    settings = replace(team_settings, data_dir=tmp_path, oauth_issuer="http://127.0.0.1:9")
    with running_issuer() as issuer:
        async with serving_team(settings) as team:
            answer = await ask(team, issuer.make_token(aud=f"{team.url}/mcp"))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert (await ask(team, await team.add_token())).status_code == 200


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"oauth_issuer": "https://login.example.com", "host": "0.0.0.0"}, "needs AGENT_JOBS_PUBLIC_URL"),
        ({"oauth_jwks_url": "https://login.example.com/keys"}, "is set without AGENT_JOBS_OAUTH_ISSUER"),
        ({"oauth_introspection_url": SecretStr("https://a:b@x/i")}, "is set without AGENT_JOBS_OAUTH_ISSUER"),
    ],
)
async def test_settings_that_do_not_fit_are_refused(
    team_settings: Settings, tmp_path: Path, changes: dict[str, Any], sentence: str
):
    with pytest.raises(ConfigError, match=sentence):
        async with open_team_server(replace(team_settings, data_dir=tmp_path, **changes)):
            pass


@pytest.mark.parametrize("written", ["https://x.example", "https://x.example/", "https://X.example//"])
def test_addresses_are_made_of_a_public_url_with_or_without_a_slash(written: str):
    settings = Settings.from_env({"AGENT_JOBS_PUBLIC_URL": written, "AGENT_JOBS_OAUTH_ISSUER": "https://login.example"})
    resource = find_resource(settings, describe_address(settings))
    assert resource is not None
    assert resource.describe()["resource"] == "https://x.example/mcp"
    assert [route.path for route in build_resource_routes(resource)] == [f"{RESOURCE_PATH}/mcp", RESOURCE_PATH]


@pytest.mark.parametrize("written", ["https://x.example/sub", "https://x.example/sub/", "https://x.example/mcp"])
def test_public_url_with_a_path_is_refused_with_the_reason(written: str):
    with pytest.raises(ConfigError, match=r"stand at the root of their host\. Give the server a host name of its own"):
        Settings.from_env({"AGENT_JOBS_PUBLIC_URL": written})
