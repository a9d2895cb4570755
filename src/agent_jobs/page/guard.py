"""Check each request before any page sees it: Host, Origin and cookie. Add the headers that keep a page safe."""

import logging
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_jobs.errors import AgentJobsError
from agent_jobs.page.access import Access, BrowserSession
from agent_jobs.page.return_path import HOME, build_sign_in_path, find_return_path, render_hop

logger = logging.getLogger(__name__)

#: Name of the session's cookie of a server at the usual port; `name_cookie` adds another one.
COOKIE = "agent_jobs_page"
#: Sentence for a browser whose session cannot be checked.
NOT_NOW = "Your session cannot be checked now, because the database does not answer. Try again in a few seconds."
#: Header of an answer that a browser may repeat: seconds until then.
RETRY_LATER = {"Retry-After": "2"}
#: Paths that need no cookie.
OPEN_PATHS = ("/static/", "/sign-in", "/favicon.ico")
#: Methods that change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD"})
#: Each response has these. No script runs but our own files, no other page can show ours, and nothing is cached.
SAFETY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Refuses requests of other hosts, other pages, and browsers that are not signed in.

    Args:
        app: The page.
        access: Knows the sessions.
        is_known_host: Returns True if a value of the Host header, such as `127.0.0.1:4777`, names this server.
    """

    def __init__(self, app: ASGIApp, access: Access, is_known_host: Callable[[str], bool]) -> None:
        self._app = app
        self._access = access
        self._is_known_host = is_known_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        app = await self._find_refusal(scope) or self._app
        return await app(scope, receive, _add_safety_headers(send))

    async def _find_refusal(self, scope: Scope) -> Response | None:
        """Return the refusal of a request; None if it may go on."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_known_host(host):
            return PlainTextResponse("This server has another name.", 421)
        if scope["method"] not in SAFE_METHODS and not _is_same_origin(headers, host):
            return PlainTextResponse("This form was sent by another page.", 403)
        return await self._check_session(scope, read_cookie(headers)) or self._refuse_stranger(scope, headers)

    async def _check_session(self, scope: Scope, cookie: str) -> Response | None:
        """Note the session of a request. Return the refusal if it cannot be checked now."""
        session: BrowserSession | None = None
        try:
            session = await self._access.find_session(cookie)
        except AgentJobsError as error:
            logger.warning("cannot check a session: %s", error)
            if not _is_open_path(scope):
                return PlainTextResponse(NOT_NOW, 503, RETRY_LATER)
        scope["page_session"] = session or BrowserSession("")
        return None

    def _refuse_stranger(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the refusal of a request without a session; None if it has one, or needs none."""
        session: BrowserSession = scope["page_session"]
        if session.token or _is_open_path(scope):
            return None
        if scope["method"] not in SAFE_METHODS:
            return PlainTextResponse(f"Sign in first. {self._access.advice}", 401)
        if "text/html" in headers.get("accept", ""):
            return_path = HOME
            if headers.get("sec-fetch-dest", "document") == "document":  # no part of an open page
                return_path = find_return_path(scope)
            if headers.get("sec-fetch-site") == "cross-site":
                return HTMLResponse(render_hop(return_path))  # the cookie may be there, and was not sent
            if self._access.has_form:
                return RedirectResponse(build_sign_in_path(return_path), 303)
        return PlainTextResponse(self._access.advice, 401)


def read_cookie(headers: Headers) -> str:
    """Return the session's cookie of a request; empty without one."""
    cookies = dict(_split_cookie(part) for part in headers.get("cookie", "").split(";"))
    return cookies.get(name_cookie(headers), "")


def name_cookie(headers: Headers) -> str:
    """Return the name of the session's cookie: browsers send the cookies of one port to all ports of a machine."""
    _, _, port = headers.get("host", "").rpartition(":")
    if not port.isdecimal():
        return COOKIE
    return f"{COOKIE}_{port}"


def _split_cookie(part: str) -> tuple[str, str]:
    # By hand: the library returns nothing at all if one cookie, which may be another program's, is not well-formed.
    name, _, value = part.strip().partition("=")
    return name, value.strip('"')


def _is_open_path(scope: Scope) -> bool:
    return scope["path"].startswith(OPEN_PATHS)


def _is_same_origin(headers: Headers, host: str) -> bool:
    """Return True if a browser declares that a form is from this page: old browsers send only Origin."""
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    return headers.get("origin") in (f"http://{host}", f"https://{host}")


def _add_safety_headers(send: Send) -> Send:
    async def send_safely(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SAFETY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_safely
