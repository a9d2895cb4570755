"""Address one Responses API endpoint: its URLs, and the headers that carry the key."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from urllib.parse import quote

import httpx2

from agent_jobs.web_address import AZURE_HOST_ENDINGS

OPENAI_HOST = "api.openai.com"
_AZURE_PATH = "/openai/v1"
_RESPONSE_ID = re.compile(r"/responses/([^/]+)")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a Responses API and the headers that every call to it carries."""

    base_url: str
    headers: Mapping[str, str]
    fingerprint: str = ""  #: a digest of the key, by which two keys differ and no key can be recovered

    @classmethod
    def of(
        cls, base_url: str, key: str, *, auth: str = "auto", organization: str | None = None, project: str | None = None
    ) -> "Endpoint":
        """Complete a base URL as a person writes it, and choose the header that carries the key.

        A missing path is filled in only where it is known (`/v1` for OpenAI, `/openai/v1` for Azure): other servers
        may serve the API at their root. A query (`?api-version=preview`) is kept on every call.
        """
        url = httpx2.URL(base_url)
        headers = {"Authorization": f"Bearer {key}"}
        if auth == "api-key" or (auth == "auto" and _is_azure_host(url)):
            headers = {"api-key": key}
        billed = {"OpenAI-Organization": organization, "OpenAI-Project": project}
        headers |= {name: value for name, value in billed.items() if value}
        fingerprint = blake2b(key.encode(), digest_size=8, salt=b"agent-jobs").hexdigest()
        return cls(str(_replace_path(url, _complete_path(url))), headers, fingerprint)

    @property
    def key(self) -> str:
        """Return the key itself."""
        return self.headers.get("api-key") or self.headers["Authorization"].removeprefix("Bearer ")

    @property
    def openai(self) -> bool:
        """Return True if this is OpenAI itself, for which the facts about its models hold."""
        return httpx2.URL(self.base_url).host.endswith(".openai.com")

    @property
    def azure(self) -> bool:
        """Return True if this is Azure, where streaming in background mode is a known issue."""
        return _is_azure_host(httpx2.URL(self.base_url))

    def url(self, path: str) -> httpx2.URL:
        """Return the address of a path below the base URL, with the query of the base URL."""
        base = httpx2.URL(self.base_url)
        return _replace_path(base, _get_raw_path(base).rstrip("/") + path)


def redact_url(url: httpx2.URL | str | None) -> str:
    """Return an address without its query and user name, which may be secret."""
    if url is None:
        return "upstream"
    return str(httpx2.URL(url).copy_with(query=None, userinfo=b""))


def quote_segment(upstream_id: str) -> str:
    """Return an id as one segment of a path. It comes from upstream and must not be able to name another path."""
    segment = quote(upstream_id, safe="")
    if segment.strip("."):
        return segment
    return segment.replace(".", "%2E")


def read_response_id(url: httpx2.URL | None) -> str:
    """Return the response id that an address names, or an empty string."""
    if url is None:
        return ""
    found = _RESPONSE_ID.search(url.path)
    if found is None:
        return ""
    return found[1]


def _is_azure_host(url: httpx2.URL) -> bool:
    return url.host.endswith(AZURE_HOST_ENDINGS)


def _complete_path(url: httpx2.URL) -> str:
    path = _get_raw_path(url).rstrip("/")
    if _is_azure_host(url) and path in ("", "/openai"):
        return _AZURE_PATH
    if url.host == OPENAI_HOST and not path:
        return "/v1"
    return path


def _replace_path(url: httpx2.URL, path: str) -> httpx2.URL:
    """Return the address with another path, which is escaped already, and the same query."""
    raw_path = path.encode()
    if url.query:
        raw_path += b"?" + url.query
    return url.copy_with(raw_path=raw_path)


def _get_raw_path(url: httpx2.URL) -> str:
    """Return the path as it goes over the wire, with its escapes."""
    return url.raw_path.partition(b"?")[0].decode()
