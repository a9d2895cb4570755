"""The scripted model on loopback, which is also the proxy that hosts are given, so that they reach nothing else."""

import json
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import urlsplit

from .dialects import DIALECTS
from .script import Conversation, Task, next_move


class ScriptedModel(ThreadingHTTPServer):
    """Answers hosts by the script, and records what they asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.refused: Counter[str] = Counter()  #: addresses beyond loopback that a host asked for
        self.begin(Task("", "", ""))

    def begin(self, task: Task) -> None:
        """Expect a host's run of this task."""
        self.task = task
        self.turns: list[Conversation] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over connections that a host cut."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _model(self) -> ScriptedModel:
        return cast("ScriptedModel", self.server)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        dialect = next((DIALECTS[end] for end in DIALECTS if path.endswith(end)), None)
        if self._is_for_another_host() or dialect is None:
            self._refuse()
            return
        body = json.loads(raw)
        conversation, task = dialect.read(body), self._model.task
        if task.user_prompt in conversation.text:
            self._model.turns.append(conversation)
            move = next_move(task, conversation, len(self._model.turns))
        else:
            move = "Nothing to say."
        answer = dialect.write(move)
        if not body.get("stream"):
            self._send(200, "application/json", json.dumps(answer))
            return
        lines = [
            (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"
            for name, data in dialect.stream(answer)
        ]
        self._send(200, "text/event-stream", "".join(lines) + dialect.last_line)

    def do_GET(self) -> None:
        self._refuse()

    do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_CONNECT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def _is_for_another_host(self) -> bool:
        """Return True if this came as to a proxy."""
        return self.command == "CONNECT" or self.path.startswith("http")

    def _refuse(self) -> None:
        if self._is_for_another_host():
            self._model.refused[urlsplit(self.path).netloc or self.path] += 1
            self._send(403, "text/plain", "Nothing is reached from here.")
        else:
            self._send(404, "application/json", '{"error": {"message": "The scripted model has no such path."}}')

    def _send(self, status: int, content_type: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serve_model() -> Generator[ScriptedModel]:
    """Serve a scripted model from threads of its own."""
    with ScriptedModel() as model:
        thread = threading.Thread(target=model.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield model
        finally:
            model.shutdown()
            thread.join()
