"""Refuse a callback to an address that the server may not call, before its job is started."""

from collections.abc import Sequence

from agent_jobs.callback_urls import AllowedHost, RefusedUrlError, parse_callback_url
from agent_jobs.errors import Argument, RequestError


def check_callback(url: str | None, allowed: Sequence[AllowedHost]) -> None:
    """Raise RequestError for an address that may not be called. The sentence does not repeat it."""
    if url is None:
        return
    name = Argument("options.callback_url")
    if not allowed:
        raise RequestError("{name} cannot be used: this server calls no addresses.", "no_callbacks", name=name)
    try:
        parse_callback_url(url, allowed)
    except RefusedUrlError as refused:
        raise RequestError("{name} cannot be used: {reason}.", "callback_refused", name=name, reason=refused) from None
