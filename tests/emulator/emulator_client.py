"""A small client of the emulator that shows exactly the bytes on the wire."""

import json
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import httpx2

from agent_jobs.emulator.server import RunningServer

MODEL = "gpt-6.2-sol"
TERMINAL = ("completed", "failed", "incomplete", "cancelled")

Json = dict[str, Any]


class Client:
    def __init__(self, server: RunningServer) -> None:
        # Nothing is encrypted here, and reading the certificates would take longer than a test.
        headers = {"authorization": "Bearer sk-test"}
        self.http = httpx2.Client(base_url=server.base_url, headers=headers, timeout=60, verify=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.http.close()

    def post(self, text: str = "hello", /, emulate: Mapping[str, Any] | None = None, **fields: Any) -> httpx2.Response:
        return self.http.post("/responses", json=request(text, emulate, **fields))

    def create(self, text: str = "hello", /, emulate: Mapping[str, Any] | None = None, **fields: Any) -> Json:
        """Create a background response."""
        answer = self.post(text, emulate, **{"background": True, "store": True, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    @contextmanager
    def streaming(
        self, text: str = "hello", /, emulate: Mapping[str, Any] | None = None, **fields: Any
    ) -> Generator[httpx2.Response]:
        body = request(text, emulate, **{"background": True, "stream": True, "store": True, **fields})
        with self.http.stream("POST", "/responses", json=body) as answer:
            yield answer

    def stream(self, text: str = "hello", /, emulate: Mapping[str, Any] | None = None, **fields: Any) -> list[Json]:
        """Create a streamed background response and read it to its end."""
        with self.streaming(text, emulate, **fields) as answer:
            assert answer.status_code == 200, answer.read()
            return parse_events(answer.read())

    def first_event(self, text: str = "hello", /, emulate: Mapping[str, Any] | None = None, **fields: Any) -> Json:
        """Create a streamed background response and leave after its first event."""
        with self.streaming(text, emulate, **fields) as answer:
            return next(read_live_events(answer))

    def get(self, response_id: str, **query: Any) -> httpx2.Response:
        return self.http.get(f"/responses/{response_id}", params=query)

    def resume(self, response_id: str, **query: Any) -> list[Json]:
        answer = self.get(response_id, stream="true", **query)
        assert answer.status_code == 200, answer.text
        return parse_events(answer.content)

    def cancel(self, response_id: str) -> httpx2.Response:
        return self.http.post(f"/responses/{response_id}/cancel")

    def wait_until_ended(self, response_id: str) -> Json:
        """Poll until the response has ended."""
        return self.wait_until(response_id, lambda body: body["status"] in TERMINAL)

    def wait_until(self, response_id: str, fact: Callable[[Json], bool]) -> Json:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            body = self.get(response_id).json()
            if fact(body):
                return body
        raise AssertionError("it did not come true in 60 s")


def request(text: str = "hello", /, emulate: Mapping[str, Any] | None = None, **fields: Any) -> Json:
    metadata = dict(fields.pop("metadata", {}))
    if emulate is not None:
        metadata["emulate"] = json.dumps(emulate)
    return {"model": MODEL, "input": text, "metadata": metadata, **fields}


def parse_events(raw: bytes) -> list[Json]:
    """Parse a stream of events, with any of the line endings the format allows."""
    text = raw.decode().removeprefix("\ufeff")
    frames = re.split(r"\n\n", text.replace("\r\n", "\n").replace("\r", "\n"))
    return list(_data(frames))


def read_live_events(answer: httpx2.Response) -> Iterator[Json]:
    """Yield the events of an open stream as they come."""
    held = ""
    for text in answer.iter_text():
        held += text
        *frames, held = held.split("\n\n")
        yield from _data(frames)


def _data(frames: Iterable[str]) -> Iterator[Json]:
    for frame in frames:
        lines = [line.removeprefix("data: ") for line in frame.split("\n") if line.startswith("data: ")]
        if lines and lines[0] != "[DONE]":
            yield json.loads("\n".join(lines))


def list_types(events: Iterable[Json]) -> list[str]:
    return [event["type"] for event in events]


def text_of(response: Json) -> str:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part.get("text", "") for part in parts)
