"""Find the next page of a list, in any of the ways in which servers name it."""

import re
from collections.abc import Mapping
from itertools import islice

import httpx2

from agent_jobs.upstream.json_object import JSON, object_of

#: A link has a slash or is a query; anything else under these names is a token.
_LINK = re.compile(r"\?|[^/]*/")
_LINK_FIELDS = ("next", "next_page", "next_url", "nextLink")
#: A field with a token, and the parameter that takes it.
_TOKEN_FIELDS = (("nextPageToken", "pageToken"), ("next_page_token", "page_token"))


def find_next_page(url: httpx2.URL, page: object) -> httpx2.URL | None:
    """Return the address of the page after this one, None after the last."""
    body = object_of(page)
    for link in map(body.get, _LINK_FIELDS):
        match link:
            case bool():
                continue
            case int():
                return url.copy_merge_params({"page": link})
            case str() if _LINK.match(link):
                return _join_same_origin(url, link)
            case _:
                continue
    parameters = _read_token(body) or _read_last_id(body)
    if not parameters:
        return None
    return url.copy_merge_params(parameters)


def _read_token(body: JSON) -> Mapping[str, str]:
    tokens = ((parameter, str(body[name])) for name, parameter in _TOKEN_FIELDS if body.get(name))
    return dict(islice(tokens, 1))


def _read_last_id(body: JSON) -> Mapping[str, str]:
    """Return the parameter with which OpenAI continues a list: the id of its last item."""
    match body:
        case {"has_more": True, "last_id": last_id} if last_id:
            return {"after": str(last_id)}
        case {"has_more": True, "data": [*_, {"id": last_id}]} if last_id:
            return {"after": str(last_id)}
        case _:
            return {}


def _join_same_origin(url: httpx2.URL, link: str) -> httpx2.URL | None:
    """Return where a link leads, None for another server: the key is sent to no other."""
    target = url.join(link)
    if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
        return None
    return target
