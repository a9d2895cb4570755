"""Remember which page a browser asked for, so that signing in leads there."""

import re
from html import escape
from urllib.parse import quote, urlencode

from starlette.types import Scope

HOME = "/"
#: A path of this server. A second slash, or a backslash, would make browsers read the name of another server.
_OWN_PATH = re.compile(r"/(?!/)[!-\[\]-~]{0,2000}")


def find_return_path(scope: Scope) -> str:
    """Return the path and query of a request as a browser writes them."""
    path, query = quote(scope["path"]), scope["query_string"].decode("latin-1")
    return check_return_path(f"{path}?{query}" if query else path)


def check_return_path(path: str) -> str:
    """Return a path of this server as it is; the home page in place of anything else."""
    if _OWN_PATH.fullmatch(path) is None:
        return HOME
    return path


def build_sign_in_path(return_path: str) -> str:
    """Return the address of the sign-in that leads to this path."""
    if return_path == HOME:
        return "/sign-in"
    return f"/sign-in?{urlencode({'next': return_path})}"


def render_hop(return_path: str) -> str:
    """Return a page that loads this path at once.

    Browsers send a strict cookie only with requests that begin here: not with a link of another page, or a redirect.
    """
    path = escape(return_path)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={path}">'
        f'<title>agent-jobs</title></head><body><p><a href="{path}">Continue to your jobs</a></p></body></html>'
    )
