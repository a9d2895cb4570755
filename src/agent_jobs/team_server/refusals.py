"""Refuse a request over HTTP before it reaches a tool, in the form that OAuth gives its errors."""

import json
from collections.abc import Mapping
from typing import Self

from starlette.responses import Response


class RefusalResponse(Response):
    """A refused request, as JSON with a code and a sentence."""

    media_type = "application/json"

    def __init__(self, status: int, error: str, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"error": error, "error_description": sentence})
        super().__init__(body, status, {"Cache-Control": "no-store", **(headers or {})})

    @classmethod
    def wrong_host(cls) -> Self:
        """Return the refusal of a request for another host: an attacker may have pointed its name here."""
        return cls(
            421, "wrong_host", "This server is known by another name; its operator sets it with AGENT_JOBS_PUBLIC_URL."
        )

    @classmethod
    def wrong_origin(cls) -> Self:
        """Return the refusal of a request that another web page sent."""
        return cls(403, "wrong_origin", "Pages of other sites may not call this server.")

    @classmethod
    def too_long(cls, limit: int) -> Self:
        """Return the refusal of a long body. The connection closes, because the rest of the body is not read."""
        return cls(413, "too_long", f"A request may have at most {limit} bytes.", {"Connection": "close"})

    @classmethod
    def too_slow(cls) -> Self:
        """Return the refusal of a body that arrives too slowly."""
        return cls(408, "too_slow", "The body of the request did not arrive in time.", {"Connection": "close"})

    @classmethod
    def only_post(cls) -> Self:
        """Return the refusal of a method: without sessions there is no stream to read and nothing to delete."""
        return cls(405, "only_post", "Send MCP messages here with POST.", {"Allow": "POST"})

    @classmethod
    def wrong_method(cls, *allowed: str) -> Self:
        """Return the refusal of a method that an address does not have."""
        return cls(405, "wrong_method", "This address does not accept this method.", {"Allow": ", ".join(allowed)})

    @classmethod
    def not_now(cls, retry_after_s: int) -> Self:
        """Return the refusal of a request whose token cannot be verified now: the verifier does not answer."""
        return cls(503, "not_now", "The token cannot be checked now. Try again.", {"Retry-After": str(retry_after_s)})

    @classmethod
    def no_database(cls, retry_after_s: int) -> Self:
        """Return the refusal of a request with a good token that needs the database, which cannot be used."""
        sentence = "The server's database cannot be used now. Try again."
        return cls(503, "no_database", sentence, {"Retry-After": str(retry_after_s)})
