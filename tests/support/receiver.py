"""The receiving side of notices and events: a real HTTP server on loopback that keeps what it gets."""

import http.server
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message


@dataclass(frozen=True)
class Received:
    """A request as it arrived."""

    path: str
    headers: "Message[str, str]"
    body: bytes


@dataclass
class Receiver:
    """A server and what it received.

    `statuses` are its next answers. Then it answers 503 to what `refuse` picks, and 200 with what `echo` returns.
    """

    url: str = ""
    received: list[Received] = field(default_factory=list[Received])
    statuses: list[int] = field(default_factory=list[int])
    refuse: Callable[[bytes], bool] = field(default=lambda body: False)
    echo: Callable[[bytes], bytes] = field(default=lambda body: b"")


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Generator[Receiver]:
    receiver = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(body)

        def do_GET(self) -> None:
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            receiver.received.append(Received(self.path, self.headers, body))
            status = 503 if receiver.refuse(body) else 200
            if receiver.statuses:
                status = receiver.statuses.pop(0)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{receiver.url}/elsewhere")
            answer = receiver.echo(body)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver.url = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
