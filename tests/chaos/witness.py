"""In front of the upstream: sees each request and each piece of each answer, and kills servers at chosen moments."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from threading import Lock

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .plan import Kill
from .windows import SERVER, Window

#: A kill whose moment did not come while so many per cent of all jobs started or ended takes any other.
PATIENCE_PERCENT = 10


@dataclass(frozen=True, slots=True)
class Death:
    """A server that was killed, and when."""

    server: str  #: the name of the process
    at: float
    operation: str
    step: int


@dataclass(slots=True)
class Birth:
    """A POST: which process sent it, when it began, and when an id was on its way back or the exchange was over."""

    server: str
    at: float
    over_at: float = inf


class Witness:
    """What is seen of all requests, from the emulator's thread and the driver's."""

    def __init__(self, kills: Iterable[Kill], jobs: int) -> None:
        self.windows: dict[str, Window] = {}
        self.deaths: list[Death] = []
        self.births: dict[str, list[Birth]] = {}  #: by X-Client-Request-Id
        self.progress = 0  #: jobs that started, and jobs that ended
        self.on_death: Callable[[str], None] = lambda text: None
        self._kills = list(kills)
        self._patience = jobs * PATIENCE_PERCENT // 100
        self._lock = Lock()

    def middleware(self, app: ASGIApp) -> "_Middleware":
        """The app with the witness in front."""
        return _Middleware(app, self)

    def saw(self, name: str, operation: str, step: int) -> None:
        """Something happened to the server of a window, or to a process of it: it may be the moment to kill it."""
        with self._lock:
            window = self.windows.get(name.partition(SERVER)[0])
            due = next((kill for kill in self._kills if self._due(kill, operation, step)), None)
            if window is None or due is None or (server := window.kill()) is None:
                return
            self._kills.remove(due)
            self.deaths.append(Death(server, time.time(), operation, step))
            self.on_death(f"kill {len(self.deaths)}: server {server} at {operation} {step}")

    def _due(self, kill: Kill, operation: str, step: int) -> bool:
        met = (kill.operation, kill.step) == (operation, step)
        return self.progress >= kill.after + (0 if met else self._patience)


class _Middleware:
    """An ASGI app around the emulator's."""

    def __init__(self, app: ASGIApp, witness: Witness) -> None:
        self._app = app
        self._witness = witness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = _operation(scope)
        if not operation:
            return await self._app(scope, receive, send)
        birth = Birth(_header(scope, b"openai-project"), time.time())
        try:
            await self._app(scope, *self._watched(operation, birth, scope, receive, send))
        finally:
            birth.over_at = min(birth.over_at, time.time())

    def _watched(
        self, operation: str, birth: Birth, scope: Scope, receive: Receive, send: Send
    ) -> tuple[Receive, Send]:
        pieces = 0
        told = b""

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                if operation == "create":
                    self._witness.births.setdefault(_header(scope, b"x-client-request-id"), []).append(birth)
                self._witness.saw(birth.server, operation, 0)
            return message

        async def tell(message: Message) -> None:
            nonlocal pieces, told
            await send(message)
            if message["type"] == "http.response.body" and (piece := message.get("body", b"")):
                pieces += 1
                if birth.over_at == inf:
                    told += piece
                    birth.over_at = time.time() if b'"resp_' in told else inf
                self._witness.saw(birth.server, operation, pieces)

        return heard, tell


def _operation(scope: Scope) -> str:
    if scope["type"] != "http" or not scope["path"].startswith("/v1/responses"):
        return ""
    if scope["method"] == "POST":
        return "cancel" if scope["path"].endswith("/cancel") else "create"
    return "stream" if b"stream=true" in scope["query_string"] else "retrieve"


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode() for key, value in scope["headers"] if key == name), "")
