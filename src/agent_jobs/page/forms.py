"""Read the forms of a session: each carries a token that no other page can know."""

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request

from agent_jobs.page.access import Access

#: Bytes of one field: the largest prompt that a person pastes.
FIELD_BYTES = 4 * 1024 * 1024


class FormReader:
    """Reads forms and refuses those of other pages."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def read(self, request: Request) -> FormData:
        """Return the fields of a form.

        Raises:
            HTTPException: It does not belong to this session.
        """
        form = await request.form(max_files=0, max_part_size=FIELD_BYTES)
        if not self._access.is_form_token(request.scope["page_session"].token, str(form.get("form_token", ""))):
            raise HTTPException(403, "This form is out of date. Load the page again.")
        return form
