"""Find the next page of a list, in any of the ways in which servers name it."""

from collections.abc import Mapping
from typing import cast

import httpx2

from agent_jobs.upstream.json_object import JSON

_LINK_FIELDS = ("next", "next_page", "next_url", "nextLink")
#: A field with a token, and the parameter that takes it.
_TOKEN_FIELDS = (("nextPageToken", "pageToken"), ("next_page_token", "page_token"))


def find_next_page(url: httpx2.URL, page: object) -> httpx2.URL | None:
    """Return the address of the page after this one, None after the last."""
    if not isinstance(page, dict):
        return None
    body = cast(JSON, page)
    for name in _LINK_FIELDS:
        link = body.get(name)
        if isinstance(link, str) and ("/" in link or link.startswith("?")):
            return _join_same_origin(url, link)
        if isinstance(link, int) and not isinstance(link, bool):
            return url.copy_merge_params({"page": link})
    parameters = _read_token(body) or _read_last_id(body)
    if not parameters:
        return None
    return url.copy_merge_params(parameters)


def _read_token(body: JSON) -> Mapping[str, str]:
    for name, parameter in _TOKEN_FIELDS:
        if body.get(name):
            return {parameter: str(body[name])}
    return {}


def _read_last_id(body: JSON) -> Mapping[str, str]:
    """Return the parameter with which OpenAI continues a list: the id of its last item."""
    last_id = body.get("last_id") or _find_last_id(body.get("data"))
    if body.get("has_more") is not True or not last_id:
        return {}
    return {"after": str(last_id)}


def _join_same_origin(url: httpx2.URL, link: str) -> httpx2.URL | None:
    """Return where a link leads, None for another server: the key is sent to no other."""
    target = url.join(link)
    if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
        return None
    return target


def _find_last_id(data: object) -> object:
    if not isinstance(data, list) or not data:
        return None
    last = cast("list[object]", data)[-1]
    if not isinstance(last, dict):
        return None
    return cast(JSON, last).get("id")
