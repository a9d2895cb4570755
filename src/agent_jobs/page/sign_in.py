"""Sign a browser in with a link from the terminal."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from agent_jobs.page.access import SESSION_S, LinkAccess
from agent_jobs.page.guard import COOKIE

#: A redirect would come without the cookie if the link stood in another page: a strict cookie is sent only from here.
_SIGNED_IN = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">'
    '<title>agent-jobs</title></head><body><p><a href="/">Continue to your jobs</a></p></body></html>'
)
WRONG_LINK = "This link was used before, or is older than ten minutes. Run `agent-jobs ui` again for another one."


class SignIn:
    """The address of sign-in links."""

    def __init__(self, access: LinkAccess) -> None:
        self._access = access

    async def redeem(self, request: Request) -> Response:
        """Set the cookie of a session for a link's token."""
        session = self._access.redeem_link(request.query_params.get("token", ""))
        if session is None:
            return PlainTextResponse(WRONG_LINK, 401)
        response = HTMLResponse(_SIGNED_IN)
        response.set_cookie(COOKIE, session, max_age=SESSION_S, path="/", httponly=True, samesite="strict")
        return response
