"""Sign a browser in with a link from the terminal, or with a team token."""

import logging

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from agent_jobs.errors import AgentJobsError
from agent_jobs.page.access import SESSION_S, Access
from agent_jobs.page.forms import FormReader
from agent_jobs.page.guard import RETRY_LATER, name_cookie
from agent_jobs.page.peer_address import read_address
from agent_jobs.page.return_path import HOME, check_return_path, render_hop
from agent_jobs.page.templates import Renderer

logger = logging.getLogger(__name__)

#: Sentence for a token that cannot be checked.
NOT_NOW = "The token cannot be checked now. Try again in a few seconds."


class SignInPages:
    """The addresses at which browsers sign in and out."""

    def __init__(self, access: Access, renderer: Renderer, forms: FormReader, *, is_secure: bool) -> None:
        self._access = access
        self._renderer = renderer
        self._forms = forms
        self._is_secure = is_secure

    async def show(self, request: Request) -> Response:
        """Sign in by the token of a link; or show the form for a team token."""
        if self._access.has_form:
            return self._show_form(request, check_return_path(request.query_params.get("next", HOME)))
        session = await self._access.sign_in(request.query_params.get("token", ""))
        if session is None:
            return PlainTextResponse(self._access.refusal, 401)
        return self._set_cookie(request, session, HOME)

    async def redeem(self, request: Request) -> Response:
        """Sign in by the token of a form. The Guard has checked that the form is ours."""
        form = await request.form(max_files=0)
        return_path = check_return_path(str(form.get("next", HOME)))
        session = None
        if self._access.has_form:  # a link's token must not be sent twice in two ways
            try:
                session = await self._access.sign_in(str(form.get("token", "")), read_address(request.scope))
            except AgentJobsError as error:
                logger.warning("cannot check a token: %s", error)
                response = self._show_form(request, return_path, NOT_NOW, 503)
                response.headers.update(RETRY_LATER)
                return response
        if session is None:
            return self._show_form(request, return_path, self._access.refusal, 401)
        return self._set_cookie(request, session, return_path)

    def _show_form(self, request: Request, return_path: str, problem: str = "", status: int = 200) -> Response:
        values = {"problem": problem, "advice": self._access.advice, "return_path": return_path}
        return self._renderer.render_page(request, "sign_in.html", values, status)

    async def leave(self, request: Request) -> Response:
        """Sign this browser out."""
        await self._forms.read(request)
        await self._access.record_sign_out(request.scope["page_session"], read_address(request.scope))
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(
            name_cookie(request.headers), path="/", httponly=True, samesite="strict", secure=self._is_secure
        )
        return response

    def _set_cookie(self, request: Request, session: str, return_path: str) -> Response:
        response = HTMLResponse(render_hop(return_path))
        response.set_cookie(
            name_cookie(request.headers),
            session,
            max_age=SESSION_S,
            path="/",
            httponly=True,
            samesite="strict",
            secure=self._is_secure,
        )
        return response
