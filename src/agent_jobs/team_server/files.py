"""Answer `PUT /files/NAME` and `GET /files/ID`: upload and download the files of jobs without a shared disk."""

import re
import unicodedata
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import anyio
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import StoreError
from agent_jobs.team_server.refusals import RefusalResponse
from agent_jobs.team_server.request_body import read_request_body

FILES_PATH = "/files"
FILE_BYTES = 32 * 2**20  # all that fits into a request to the provider
BODY_S = 120.0  # until a body is complete
MAX_NAME_BYTES = 150  # in UTF-8: longer ones are cut by file systems
#: They separate paths, have a meaning for a shell or Windows, or replace bytes that are not UTF-8.
FORBIDDEN_CHARS = frozenset('/\\:*?"<>|\ufffd')
FORBIDDEN_CATEGORIES = frozenset(
    {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
)  # control characters, and those that reverse text
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.I)  # names of devices on Windows
_FILE_ID = re.compile(r"(up|made)_[0-9a-f]{32}")
#: A browser must neither render nor cache a file.
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
}


class _AnyName(PathConvertor):
    """Matches names with line breaks as well, so that they are refused like other odd names."""

    regex = "(?s:.*)"


class _FileEndpoint:
    """Stores and serves the files of the caller's owner."""

    def __init__(self, engine: Callable[[], Awaitable[Engine]]) -> None:
        self._engine = engine

    async def put(self, request: Request) -> Response:
        """Store a file for a day."""
        name = find_safe_name(request.path_params["name"])
        if not name:
            sentence = "Use a name with letters and digits, without folders, and at most 150 bytes long."
            return RefusalResponse(400, "bad_name", sentence, {"Connection": "close"})
        body = None
        with anyio.move_on_after(BODY_S) as reading:
            body = await read_request_body(request, FILE_BYTES)
        if reading.cancelled_caught:
            return RefusalResponse.too_slow()
        if body is None:
            return RefusalResponse.too_long(FILE_BYTES)
        return await self._store_file(name, body)

    async def _store_file(self, name: str, body: bytes) -> Response:
        try:
            stored = await (await self._engine()).files.upload(name, body)
        except StoreError:
            return RefusalResponse.no_database(1)
        if stored is None:
            return RefusalResponse(507, "no_room", "Your files of the last day have no room for this one.")
        word, expires_at = stored
        answer = {"file": word, "name": name, "bytes": len(body), "expires_at": round(expires_at)}
        return JSONResponse(answer, 201, SAFE_HEADERS)

    async def get(self, request: Request) -> Response:
        """Return a file that the owner uploaded, or that a run of the owner's jobs made."""
        file_id: str = request.path_params["name"]
        file = None
        try:
            if _FILE_ID.fullmatch(file_id):
                file = await (await self._engine()).files.read(file_id)
        except StoreError:
            return RefusalResponse.no_database(1)
        if file is None:
            return RefusalResponse(404, "no_such_file", "There is no such file.")
        headers = {"Content-Disposition": describe_download(file.name), **SAFE_HEADERS}
        return Response(file.data, media_type="application/octet-stream", headers=headers)


def build_file_routes(engine: Callable[[], Awaitable[Engine]]) -> list[Route]:
    """Return the routes of files, for callers that have signed in.

    Args:
        engine: Returns the engine that is bound to the owner of the caller.
    """
    endpoint = _FileEndpoint(engine)
    register_url_convertor("any", _AnyName())
    path = FILES_PATH + "/{name:any}"
    return [Route(path, endpoint.put, methods=["PUT"]), Route(path, endpoint.get, methods=["GET"])]


def find_safe_name(name: str) -> str:
    """Return the name of an upload as it is stored; empty for one that could lead anywhere or deceive a reader."""
    name = unicodedata.normalize("NFC", name)
    is_odd = any(char in FORBIDDEN_CHARS or unicodedata.category(char) in FORBIDDEN_CATEGORIES for char in name)
    if is_odd or name != name.strip(" .") or DEVICES.fullmatch(name):
        return ""
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        return ""
    return name


def describe_download(name: str) -> str:
    """Return the value of Content-Disposition: a browser saves the file under its name, and shows nothing."""
    plain = re.sub(r"[^ !#-\[\]-~]|%", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
