"""Watch each request and each piece of each answer in front of the provider, and kill servers at chosen moments."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from threading import Lock

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .plan import Kill
from .windows import SERVER, Window

#: Per cent of all jobs that start or finish while a kill waits for its moment; after that it takes any moment.
PATIENCE_PERCENT = 10


@dataclass(frozen=True, slots=True)
class Death:
    """A server that was killed, and when."""

    server: str  #: the name of the process
    at: float
    operation: str
    step: int


@dataclass(slots=True)
class CreateCall:
    """A POST: its sender, its beginning, and the moment when an id was on its way back or the exchange was over."""

    server: str
    at: float
    over_at: float = inf


class Witness:
    """A record of all requests, written by the emulator's thread and the driver's."""

    def __init__(self, kills: Iterable[Kill], jobs: int) -> None:
        self.windows: dict[str, Window] = {}
        self.deaths: list[Death] = []
        self.create_calls: dict[str, list[CreateCall]] = {}  #: by X-Client-Request-Id
        self.progress = 0  #: starts plus ends of jobs
        self.on_death: Callable[[str], None] = lambda text: None
        self._kills = list(kills)
        self._patience = jobs * PATIENCE_PERCENT // 100
        self._lock = Lock()

    def middleware(self, app: ASGIApp) -> "_Middleware":
        """Return the app with the witness in front."""
        return _Middleware(app, self)

    def notice(self, name: str, operation: str, step: int) -> None:
        """Record a step of the server of a window, and kill the server if the step is the moment of a kill."""
        with self._lock:
            window = self.windows.get(name.partition(SERVER)[0])
            due = next((kill for kill in self._kills if self._is_due(kill, operation, step)), None)
            if window is None or due is None or (server := window.kill()) is None:
                return
            self._kills.remove(due)
            self.deaths.append(Death(server, time.time(), operation, step))
            self.on_death(f"kill {len(self.deaths)}: server {server} at {operation} {step}")

    def _is_due(self, kill: Kill, operation: str, step: int) -> bool:
        met = (kill.operation, kill.step) == (operation, step)
        return self.progress >= kill.after + (0 if met else self._patience)


class _Middleware:
    """An ASGI app around the emulator's."""

    def __init__(self, app: ASGIApp, witness: Witness) -> None:
        self._app = app
        self._witness = witness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = _read_operation(scope)
        if not operation:
            return await self._app(scope, receive, send)
        create_call = CreateCall(_read_header(scope, b"openai-project"), time.time())
        try:
            await self._app(scope, *self._watch_exchange(operation, create_call, scope, receive, send))
        finally:
            create_call.over_at = min(create_call.over_at, time.time())

    def _watch_exchange(
        self, operation: str, create_call: CreateCall, scope: Scope, receive: Receive, send: Send
    ) -> tuple[Receive, Send]:
        pieces = 0
        start_of_answer = b""

        async def receive_noticed() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                if operation == "create":
                    self._witness.create_calls.setdefault(_read_header(scope, b"x-client-request-id"), []).append(
                        create_call
                    )
                self._witness.notice(create_call.server, operation, 0)
            return message

        async def send_noticed(message: Message) -> None:
            nonlocal pieces, start_of_answer
            await send(message)
            if message["type"] == "http.response.body" and (piece := message.get("body", b"")):
                pieces += 1
                if create_call.over_at == inf:
                    start_of_answer += piece
                    create_call.over_at = time.time() if b'"resp_' in start_of_answer else inf
                self._witness.notice(create_call.server, operation, pieces)

        return receive_noticed, send_noticed


def _read_operation(scope: Scope) -> str:
    if scope["type"] != "http" or not scope["path"].startswith("/v1/responses"):
        return ""
    if scope["method"] == "POST":
        return "cancel" if scope["path"].endswith("/cancel") else "create"
    return "stream" if b"stream=true" in scope["query_string"] else "retrieve"


def _read_header(scope: Scope, name: bytes) -> str:
    return next((value.decode() for key, value in scope["headers"] if key == name), "")
