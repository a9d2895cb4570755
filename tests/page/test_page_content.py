"""The pages show costs, conversations, files, timelines and filters, and no secret. No browser is needed."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from browsers import PageServer, serving_page

from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.queries import UNWATCHED, WATCHED
from agent_jobs.jobs.status import Status
from agent_jobs.page import views
from agent_jobs.page.safe_html import link_citations
from agent_jobs.rendering.last_sentence import find_last_sentence
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr
from agent_jobs.store import open_store

PRICES = '[models."emulated-1"]\ninput = 2.0\noutput = 10.0\ncached = 1.0\ncache_write = 2.5\ncontext_tokens = 1000\n'
TRACKER = {"type": "mcp", "server_label": "tracker", "server_url": "https://tracker.example/mcp"}


@asynccontextmanager
async def visiting(settings: Settings) -> AsyncGenerator[tuple[PageServer, httpx2.AsyncClient]]:
    """Run the page, and yield a signed-in visitor."""
    async with serving_page(settings) as server, httpx2.AsyncClient(base_url=server.url, trust_env=False) as client:
        await client.get(server.link)
        client.headers["Origin"] = server.url
        yield server, client


async def send_form(client: httpx2.AsyncClient, page: str, path: str, **fields: str) -> httpx2.Response:
    """Send a form with the token that its page has."""
    html = (await client.get(page)).text
    token = html.partition('name="form_token" value="')[2].partition('"')[0]
    return await client.post(path, data={"form_token": token, **fields})


async def wait_for_text(client: httpx2.AsyncClient, path: str, text: str) -> str:
    """Retrieve a page until it has this text, and return it."""
    with anyio.fail_after(60):
        while text not in (html := (await client.get(path)).text):  # noqa: ASYNC110
            await anyio.sleep(0.05)
    return html


async def test_cost_is_beside_limit_and_budget(settings: Settings, tmp_path: Path) -> None:
    prices = anyio.Path(tmp_path / "prices.toml")
    await prices.write_text(PRICES)
    settings = replace(settings, prices=Path(prices), daily_budget_usd=4.0, budget_mode="spent")
    usage = {"input_tokens": 500_000, "output_tokens": 25_000}
    async with visiting(settings) as (server, client):
        options = {"max_cost_usd": 3, "max_output_tokens": 1000}
        started = await server.host.start(
            model="emulated-1", emulate={"duration_s": 1, "usage": usage}, options=options
        )
        await server.host.end(started["job_id"])
        job = (await client.get(f"/jobs/{started['job_id']}")).text
        assert "$1.25 of $3.00</span>" in job and '<meter min="0" max="3' in job
        for path in ("/", "/new", "/spend"):
            assert "$1.25 of $4.00 today</span>" in (await client.get(path)).text, path
        assert "$1.25" in (jobs := (await client.get("/")).text) and "of $3.00" in jobs


async def test_sum_without_a_known_cost_is_unknown(settings: Settings) -> None:
    async with visiting(settings) as (server, client):
        assert "$0.00 <span" in (await client.get("/spend")).text
        for model in ("emulated-a", "emulated-b"):
            started = await server.host.start(model, model=model, emulate={"duration_s": 0.2})
            await server.host.end(started["job_id"])
        html = (await client.get("/spend")).text
        assert "Cost unknown <span" in html and "The cost of 2 jobs is not known." in html
        assert '<td class="number">unknown</td>' in html
        assert "$0.00" not in html and "+ 1 unknown" not in html
        estimate = (await send_form(client, "/new", "/new/estimate", prompt="Hello", model="emulated-a")).text
        assert "tokens</dd>" in estimate and "of input" not in estimate


async def test_call_of_an_always_allowed_tool_asks_no_question(settings: Settings) -> None:
    close = {"mcp_approval": {"server_label": "tracker", "name": "close", "arguments": {"id": 1}}}
    other = {"mcp_approval": {"server_label": "tracker", "name": "delete", "arguments": {"id": 2}}}
    script = {"duration_s": 1, "turns": [close, close, close, other, {"text": "Closed."}]}
    async with visiting(settings) as (server, client):
        started = await server.host.start(emulate=script, options={"tools": [TRACKER]})
        path = f"/jobs/{started['job_id']}"
        html = await wait_for_text(client, "/", "<code>tracker/close</code>?")
        call = html.partition('name="call" value="')[2].partition('"')[0]
        turn = html.partition('name="turn" value="')[2].partition('"')[0]
        answer = await send_form(
            client, path, f"{path}/reply", answer="always", call=call, turn=turn, **{"from": "list"}
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        html = await wait_for_text(client, path, "<code>tracker/delete</code>?")
        assert "Always allowed until this job ends: <code>tracker/close</code>" in html
        for answer in [await send_form(client, path, f"{path}/ask-again", tool="tracker/close") for _ in range(2)]:
            assert (answer.status_code, answer.headers["location"]) == (303, path)
        assert "Always allowed" not in (await client.get(path)).text
        call = html.partition('name="call" value="')[2].partition('"')[0]
        turn = html.partition('name="turn" value="')[2].partition('"')[0]
        assert turn == "4", "each call of the same tool had a turn"
        await send_form(client, path, f"{path}/reply", answer="deny", call=call, turn=turn)
        assert (await server.host.end(started["job_id"]))["status"] == "completed"


async def test_files_of_a_job_are_downloaded_and_never_shown(settings: Settings) -> None:
    files = [{"filename": "a.html", "text": "<script>1</script>"}, {"filename": "b.csv", "text": "1,2"}]
    async with visiting(settings) as (server, client):
        started = await server.host.start(
            emulate={"duration_s": 1, "container_files": files},
            options={"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        )
        await server.host.end(started["job_id"])
        path = f"/jobs/{started['job_id']}"
        html = await wait_for_text(client, path, "b.csv</bdi>")
        assert f'href="{path}/files/0" download><bdi>a.html</bdi>' in html
        answer = await client.get(f"{path}/files/0")
        assert (answer.text, answer.headers["content-type"]) == ("<script>1</script>", "application/octet-stream")
        assert answer.headers["content-disposition"] == 'attachment; filename="a.html"'
        assert (await client.get(f"{path}/files/2")).status_code == 404
        assert (await client.get(f"{path}/files/-1")).status_code == 404
        async for file in anyio.Path(settings.data_path()).rglob("a.html"):
            await file.unlink()
        gone = await client.get(f"{path}/files/0")
        assert gone.status_code == 404 and "moved or deleted" in gone.text


SELECTIONS = {
    "": {"one", "two", "three"},
    "?batch=b": {"two"},
    "?model=emulated-2": {"three"},
    "?show=failed": {"three"},
    "?show=failed&batch=b": set[str](),
    "?show=running": set[str](),
    "?show=needs-you": set[str](),
    "?show=unread&limit=1": {"three"},
    "?model=&limit=2": {"one", "two", "three"},
    "?client=mcp&limit=2": {"two", "three"},
    "?limit=x&show=%3Cscript%3E": {"one", "two", "three"},
}


async def test_address_selects_jobs(settings: Settings) -> None:
    jobs: dict[str, dict[str, Any]] = {
        "one": {},
        "two": {"batch": "b"},
        "three": {"model": "emulated-2", "emulate": {"end": "failed", "error_code": "invalid_prompt"}},
    }
    async with visiting(settings) as (server, client):
        engine = await server.host.app.engine()
        for title, more in jobs.items():
            script = {"duration_s": 0.1, **more.pop("emulate", {})}
            options = {"metadata": {"emulate": json.dumps(script)}}
            job_id = (await server.host.call("agent_start", prompt=title, wait_s=0, options=options, **more))["job_id"]
            with anyio.fail_after(60):
                while not (await engine.find_progress(job_id)).is_terminal:  # noqa: ASYNC110  # a poll would mark the result as read
                    await anyio.sleep(0.02)
        for query, shown in SELECTIONS.items():
            html = (await client.get(f"/{query}")).text
            assert {title for title in jobs if f"<bdi>{title}</bdi></a>" in html} == shown, query
            assert "<script>" not in html
        assert "1 older job" in (await client.get("/?client=mcp&limit=2")).text


async def test_timeline_shows_when_no_process_observed_a_job(settings: Settings) -> None:
    async with visiting(settings) as (server, client):
        started = await server.host.start(emulate={"duration_s": 600})
        engine = await server.host.app.engine()
        now = engine.now()
        async with open_store(settings.data_path()) as store:
            await store.record_event(started["job_id"], now - 300, UNWATCHED)
            await store.record_event(started["job_id"], now - 60, WATCHED)
        html = (await client.get(f"/jobs/{started['job_id']}")).text
        assert '<li class="gap">' in html
        assert "4 min 00 s" in html.partition('<li class="gap">')[2].partition("</li>")[0]


async def test_timeline_repeats_no_time_and_shows_tenths_of_seconds(settings: Settings) -> None:
    async with visiting(settings) as (server, client):
        started = await server.host.start(emulate={"duration_s": 1, "searches": 1})
        await server.host.end(started["job_id"])
        html = (await client.get(f"/jobs/{started['job_id']}")).text
    timeline = html.partition('<ol class="steps">')[2].partition("</ol>")[0]
    shown = re.findall(r'<time class="after" datetime="[^"]+" title="[^"]+">([^<]*)</time>', timeline)
    assert shown[0] == "0 s" and len(shown) >= 5
    times = [each for each in shown if each]
    assert times == sorted(set(times), key=times.index), "each time is shown once"
    assert "> 0 s<" not in timeline.replace('duration">0 s', "> 0 s")


async def test_prompt_that_reorders_its_text_is_shown_with_escapes(settings: Settings) -> None:
    async with visiting(settings) as (server, client):
        started = await server.host.start("open gpj.\u202eexe\u2066")
        html = (await client.get(f"/jobs/{started['job_id']}")).text
    assert "gpj.\\u202eexe\\u2066" in html
    assert not {"\u202e", "\u2066"} & set(html)


async def test_titles_say_how_many_jobs_wait_and_how_a_job_ended(settings: Settings) -> None:
    call: dict[str, Any] = {"name": "lookup", "arguments": {}}
    tools = [{"type": "function", "name": "lookup", "parameters": {"type": "object"}}]
    async with visiting(settings) as (server, client):
        assert "<title>Jobs · agent-jobs</title>" in (await client.get("/")).text
        asking = await server.host.start("Ask", emulate={"function_calls": [call]}, options={"tools": tools})
        await wait_for_text(client, "/", "What does <code>lookup</code> return?")
        assert "<title>(1) Jobs · agent-jobs</title>" in (await client.get("/")).text
        assert "<title>(1) Ask" in (await client.get(f"/jobs/{asking['job_id']}")).text
        for end, mark in (("completed", "\N{CHECK MARK}"), ("failed", "\N{BALLOT X}")):
            started = await server.host.start(end, emulate={"duration_s": 0.2, "end": end})
            await server.host.end(started["job_id"])
            assert f"<title>{mark} {end}" in (await client.get(f"/jobs/{started['job_id']}")).text


def test_statuses_have_the_names_that_the_terminal_shows() -> None:
    assert {words.replace(" ", "_") for words in views.STATUS_WORDS.values()} == set(Status)


async def test_request_and_response_are_shown_without_secrets(settings: Settings) -> None:
    tool = {**TRACKER, "authorization": "${TOKEN}", "headers": {"X-Key": "${TOKEN}"}, "require_approval": "never"}
    settings = replace(settings, secrets={"TOKEN": SecretStr("very-secret")})
    async with visiting(settings) as (server, client):
        started = await server.host.start(emulate={"duration_s": 1}, options={"tools": [tool]})
        await server.host.end(started["job_id"])
        html = unescape((await client.get(f"/jobs/{started['job_id']}")).text)
        request, _, response = html.partition("<summary>Response</summary>")
        assert '"authorization": "${TOKEN}"' in request and '"server_url": "https://tracker.example/…"' in request
        assert '"tools"' in response
        assert "very-secret" not in html


def make_row(name: str, previous: str = "") -> views.JobRow:
    turn = Turn(number=1, request={}, request_id="r", base_url="http://x")
    job = Job(id=name, title=name, status=Status.COMPLETED, created_at=0, turn=turn, previous_job_id=previous or None)
    return views.build_row(job, 0)


@pytest.mark.parametrize(
    ("rows", "tree"),
    [
        ("", ""),
        ("b a", "b0 a0"),
        ("b<a a", "a0 b1"),
        ("d<a c<b b<a a", "a0 b1 c2 d1"),
        ("c<b b<gone x", "b0 c1 x0"),
        ("f<e e<d d<c c<b b<a a", "a0 b1 c2 d3 e3 f3"),
    ],
)
def test_follow_ups_are_below_the_job_that_they_continue(rows: str, tree: str) -> None:
    listed = [make_row(*row.split("<")) for row in rows.split()]
    assert " ".join(f"{row.id}{row.depth}" for row in views.arrange_threads(listed)) == tree


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", ""),
        ("First. Second. Thi", "Second."),
        ("Only a beginn", "Only a beginn"),
        ("# Heading\n\n**Two** writes are `lost`. The", "Two writes are lost."),
        ("See [the page](https://x.example/y) now! And", "See the page now!"),
        ("One.\n\n---\n", "One."),
        ("a" * 500, "a" * 179 + "…"),
    ],
)
def test_last_sentence_is_found_while_the_text_grows(text: str, sentence: str) -> None:
    assert find_last_sentence(text) == sentence


@pytest.mark.parametrize(
    ("html", "linked"),
    [
        ("<p>a[1] b[2]</p>", '<p>a<sup><a href="#source-1">[1]</a></sup> b[2]</p>'),
        ("<code>a[1]</code> [1]", '<code>a[1]</code> <sup><a href="#source-1">[1]</a></sup>'),
        ('<a href="x" title="y>[1]">[1]</a>', '<a href="x" title="y>[1]">[1]</a>'),
        ("[0] [01] [999] [1", '[0] <sup><a href="#source-1">[1]</a></sup> [999] [1'),
    ],
)
def test_numbers_of_sources_become_links_outside_of_code_and_links(html: str, linked: str) -> None:
    assert link_citations(html, 1) == linked
