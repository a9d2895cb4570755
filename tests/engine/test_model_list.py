"""The model in the report of `doctor`, if an endpoint serves its list of models in full or in part."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast
from urllib.parse import parse_qs

import pytest
from hosts import hosting
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_jobs.cli.checks.endpoint_check import check_endpoint
from agent_jobs.cli.checks.finding import Finding
from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.server import run_emulator
from agent_jobs.settings.settings import Settings

JSON = dict[str, Any]
Answer = tuple[int, str, Any]
NOT_FOUND: Answer = (404, "application/json", {"detail": "Not Found"})
PAGE: Answer = (200, "text/html", "<!DOCTYPE html><title>Console</title><p>Models</p>")


class Models:
    """Answer requests for models in place of the emulator.

    Args:
        card: The answer for one model.
        pages: Those for the list, by the query that asks for each; without one in the end, a 404.
    """

    def __init__(self, app: ASGIApp, *, card: Answer, pages: dict[str, Answer], asked: list[str]) -> None:
        self._app = app
        self._card = card
        self._pages = pages
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "/models" not in scope["path"]:
            return await self._app(scope, receive, send)
        query = parse_qs(scope["query_string"].decode())
        [wanted] = {value for values in query.values() for value in values} or {""}
        listing = scope["path"].endswith("/models")
        self._asked.append(wanted if listing else "card")
        status, kind, body = self._pages.get(wanted, NOT_FOUND) if listing else self._card
        data = body if isinstance(body, str) else json.dumps(body)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
        await send({"type": "http.response.body", "body": data.encode()})


@asynccontextmanager
async def run_doctor(
    settings: Settings, model: str, card: Answer, *pages: tuple[str, Any], asked: list[str] | None = None
) -> AsyncGenerator[dict[str, Finding]]:
    """Return the findings of `doctor` at an endpoint with these answers."""
    emulator = Emulator()
    answers = {query: _answer(body) for query, body in pages}
    emulator.app.add_middleware(Models, card=card, pages=answers, asked=[] if asked is None else asked)
    with run_emulator(emulator=emulator) as upstream:
        there = replace(settings, base_url=upstream.base_url, model=model)
        async with hosting(there) as host:
            findings = await check_endpoint(await host.app.engine(), there)
            yield {finding.what: finding for finding in findings}


def _answer(body: Any) -> Answer:
    return cast(Answer, body) if isinstance(body, tuple) else (200, "application/json", body)


def build_cards(*names: str) -> list[JSON]:
    return [{"id": name, "object": "model"} for name in names]


#: The requested name, and a list that has the model.
LISTED: dict[str, tuple[str, list[tuple[str, Any]]]] = {
    "data": ("gpt-5", [("", {"object": "list", "data": build_cards("gpt-4", "gpt-5")})]),
    "models": ("gpt-5", [("", {"models": [{"name": "gpt-5"}]})]),
    "a bare list": ("gpt-5", [("", build_cards("gpt-5"))]),
    "names alone": ("gpt-5", [("", {"data": ["gpt-4", "gpt-5"]})]),
    "keys": ("gpt-5", [("", {"models": {"gpt-5": {"context": 1}}})]),
    "a list in data": ("gpt-5", [("", {"data": {"models": build_cards("gpt-5")}})]),
    "a prefix on both sides": ("openai/gpt-5", [("", {"data": build_cards("openai/gpt-5")})]),
    "a resource": ("gpt-5", [("", {"models": [{"name": "models/gpt-5"}]})]),
    "a default tag": ("llama3", [("", {"models": [{"name": "llama3:latest"}]})]),
    "a pattern": ("openai/gpt-5", [("", {"data": build_cards("anthropic/*", "openai/*")})]),
    "a later page": (
        "gpt-5",
        [("", {"data": build_cards("a"), "has_more": True, "last_id": "a"}), ("a", {"data": build_cards("gpt-5")})],
    ),
    "a later page by its last entry": (
        "gpt-5",
        [("", {"data": build_cards("a"), "has_more": True}), ("a", {"data": build_cards("gpt-5"), "has_more": False})],
    ),
    "a token": (
        "gpt-5",
        [("", {"models": build_cards("a"), "nextPageToken": "t"}), ("t", {"models": build_cards("gpt-5")})],
    ),
    "an address": (
        "gpt-5",
        [("", {"data": build_cards("a"), "next": "/v1/models?page=2"}), ("2", {"data": build_cards("gpt-5")})],
    ),
    "a number": ("gpt-5", [("", {"data": build_cards("a"), "next_page": 2}), ("2", {"data": build_cards("gpt-5")})]),
}


@pytest.mark.parametrize(("model", "pages"), LISTED.values(), ids=LISTED)
async def test_model_that_only_the_list_has_is_available(
    settings: Settings, model: str, pages: list[tuple[str, Any]]
) -> None:
    async with run_doctor(settings, model, NOT_FOUND, *pages) as found:
        assert (found["upstream"].state, found["model"].state) == ("ok", "ok")
        assert found["model"].text == f"{model} is available"


#: Answers for a single model although the list has it.
NO_CARD: dict[str, Answer] = {
    "no such path": (404, "text/plain", "404 page not found"),
    "another method": (405, "application/json", {"detail": "Method Not Allowed"}),
    "a web page": PAGE,
    "an object of something else": (200, "application/json", {"data": {"id": "gpt-5"}}),
    "a server error": (500, "application/json", {"error": {"message": "no route"}}),
    "a name cut at its slash": (404, "application/json", {"error": {"message": "The model 'openai' does not exist"}}),
}


@pytest.mark.parametrize("card", NO_CARD.values(), ids=NO_CARD)
async def test_list_overrides_the_answer_for_the_single_model(settings: Settings, card: Answer) -> None:
    async with run_doctor(settings, "gpt-5", card, ("", {"data": build_cards("gpt-5")})) as found:
        assert (found["upstream"].state, found["model"].state) == ("ok", "ok")


@pytest.mark.parametrize(
    ("model", "names", "near"),
    [
        ("gpt-5", ["openai/gpt-5", "google/gemini-4"], "openai/gpt-5"),
        ("openai/gpt-5", ["gpt-5", "gemini-4"], "gpt-5"),
        ("GPT-5", ["gpt-5", "gemini-4"], "gpt-5"),
        ("gpt5", ["gemini-4", "gpt-5", "gpt-5-mini"], "gpt-5"),
        ("gpt-5", ["qwen3", "llama3"], "qwen3, llama3"),
        ("gpt-5", [f"m{n}" for n in range(9)], "m0, m1, m2, m3, m4 and 4 more"),
    ],
)
async def test_model_that_the_list_lacks_is_reported_with_the_nearest_names(
    settings: Settings, model: str, names: list[str], near: str
) -> None:
    async with run_doctor(settings, model, NOT_FOUND, ("", {"data": build_cards(*names)})) as found:
        assert (found["upstream"].state, found["model"].state) == ("ok", "problem")
        assert found["model"].text.endswith(f"does not list {model}")
        assert found["model"].fix.partition(" has: ")[2].startswith(near)


@pytest.mark.parametrize(
    ("card", "listing", "state", "words"),
    [
        (NOT_FOUND, NOT_FOUND, "warning", "does not say which models it has"),
        (NOT_FOUND, {"object": "list", "data": []}, "warning", "does not say which models it has"),
        (NOT_FOUND, PAGE, "warning", "does not say which models it has"),
        (PAGE, PAGE, "problem", "perhaps with a web page"),
        (NOT_FOUND, (401, "application/json", {"error": {"message": "bad key"}}), "problem", "refuses the key"),
        ((503, "text/plain", "down"), (503, "text/plain", "down"), "problem", "down"),
    ],
    ids=["nowhere", "an empty list", "a page for the list", "pages", "a key refused by the list", "down"],
)
async def test_endpoint_without_a_list_is_reported_as_such(
    settings: Settings, card: Answer, listing: Any, state: str, words: str
) -> None:
    async with run_doctor(settings, "gpt-5", card, ("", listing)) as found:
        assert found["upstream"].state == state
        assert words in found["upstream"].text
        assert "OPENAI_" in found["upstream"].fix


@pytest.mark.parametrize(
    "page",
    [
        {"data": build_cards("a"), "has_more": True},
        {"data": build_cards("a"), "next": "/v1/models"},
        {"data": build_cards("a"), "next": "https://elsewhere.example/v1/models"},
    ],
    ids=["the same page again", "the same address", "another host"],
)
async def test_endless_list_and_list_at_another_host_are_not_read(settings: Settings, page: JSON) -> None:
    asked: list[str] = []
    async with run_doctor(settings, "gpt-5", NOT_FOUND, ("", page), ("a", page), asked=asked) as found:
        assert found["model"].state == "problem"
    assert len(asked) <= 3
