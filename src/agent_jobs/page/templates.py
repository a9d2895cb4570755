"""Fill in the templates. All text is escaped, except HTML from `safe_html`."""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, JobNotFoundError, StoreError
from agent_jobs.page.access import Access, BrowserSession
from agent_jobs.page.wording import word_error
from agent_jobs.rendering.remote_errors import hide_machine_details

#: Returns the engine of the jobs that a request's user may see.
EngineSource = Callable[[Request], Awaitable[Engine]]

logger = logging.getLogger(__name__)

TEMPLATE_FOLDER = Path(__file__).with_name("html")
#: Names, paths and access keys of the pages, for the navigation.
PAGES = (("Jobs", "/", "j"), ("New", "/new", "n"), ("Spend", "/spend", "s"), ("Health", "/health", "h"))
#: Placeholder for the form token in a part that several sessions share. It is secret, so no text of a job has it.
TOKEN_PLACE = token_urlsafe(18)


class Renderer:
    """Fills in templates for a request."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATE_FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )

    def render_page(self, request: Request, template: str, values: dict[str, Any], status: int = 200) -> Response:
        """Return a whole page."""
        return HTMLResponse(self.render_part(request, template, values), status)

    def render_part(self, request: Request, template: str, values: dict[str, Any]) -> str:
        """Return the HTML of a page, or of the part of it that changes."""
        session: BrowserSession = request.scope["page_session"]
        shared = {"pages": PAGES, "here": request.url.path, "title_mark": "", "words": "", "owner": session.owner}
        return self.finish_part(request, self.render_shared_part(template, {**shared, **values}))

    def render_shared_part(self, template: str, values: dict[str, Any]) -> str:
        """Return the HTML of a part for all sessions that see the same jobs; `finish_part` completes it for one."""
        return self._templates.get_template(template).render({"form_token": TOKEN_PLACE, **values})

    def finish_part(self, request: Request, html: str) -> str:
        """Return a part with the form token of a request's session."""
        session: BrowserSession = request.scope["page_session"]
        return html.replace(TOKEN_PLACE, self._access.form_token(session.token))

    def render_error(self, request: Request, error: Exception) -> Response:
        """Return a page, or JSON, with the error."""
        match error:
            case HTTPException():
                status, message = error.status_code, str(error.detail)
            case JobNotFoundError():
                status, message = 404, self._word_for_visitor(error)
            case StoreError():
                status, message = 503, self._word_for_visitor(error)
            case AgentJobsError():
                status, message = 400, self._word_for_visitor(error)
            case _:
                status, message = 400, str(error)
        if request.url.path.endswith(".json"):
            return JSONResponse({"error": message}, status)
        return self.render_page(request, "error.html", {"message": message}, status)

    def _word_for_visitor(self, error: AgentJobsError) -> str:
        """Return an error in words, without paths and addresses for visitors who are not this machine's user."""
        shown = error
        if self._access.hides_machine:
            shown = hide_machine_details(error)
        if shown is not error:
            logger.warning("a page hides the cause of an error: %s", error)
        return word_error(shown, is_for_owner=self._access.hides_machine)
