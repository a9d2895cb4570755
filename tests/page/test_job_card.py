"""The card of a job in a host that renders apps: a harness speaks the frame protocol with it in a real Chromium."""

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hosts import Host, hosting
from installed_browser import NEEDS_BROWSER, NO_BROWSER, find_browser
from mcp.client.extension import advertise
from mcp_types import TextContent, TextResourceContents
from playwright.async_api import Browser, FrameLocator, Page, expect

from agent_jobs.mcp_server.front_door import FrontDoor, load_answers
from agent_jobs.settings.settings import Settings

URI = "ui://agent-jobs/job"
MIME_TYPE = "text/html;profile=mcp-app"
APPS = "io.modelcontextprotocol/ui"
SETTINGS: dict[str, Any] = {"mimeTypes": [MIME_TYPE]}
TRACKER = {"type": "mcp", "server_label": "tracker", "server_url": "https://tracker.example/mcp"}
NEEDS_CHROMIUM = pytest.mark.skipif(find_browser() is None and NEEDS_BROWSER not in os.environ, reason=NO_BROWSER)
#: The policy that a host must apply to a card that names no address.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'none'"
#: A host: it renders the card in a sandbox, answers its requests, and passes its calls to the server.
HARNESS = """<!doctype html><title>host</title><iframe id="card" sandbox="allow-scripts"></iframe><script>
const log = window.log = [];
const frame = document.getElementById("card");
const send = message => frame.contentWindow.postMessage({jsonrpc: "2.0", ...message}, "*");
window.notify = (method, params) => send({method, params});
addEventListener("message", async event => {
  if (event.source !== frame.contentWindow) return;
  const {id, method, params} = event.data;
  log.push(method || "answer");
  if (method === "ui/initialize") {
    const hostContext = {theme: "dark", styles: {variables: {"--color-text-primary": "rgb(1, 2, 3)"}}};
    const host = {hostInfo: {name: "h", version: "1"}, hostCapabilities: {serverTools: {}}, hostContext};
    send({id, result: {protocolVersion: "2026-01-26", ...host}});
  } else if (method === "ui/notifications/initialized") {
    notify("ui/notifications/tool-input", {arguments: {prompt: "x"}});
    notify("ui/notifications/tool-result", await window.startResult());
  } else if (method === "tools/call") {
    send({id, result: await window.callServer(params.name, params.arguments)});
  } else if (id !== undefined) {
    window.requested(method, params);
    send({id, result: {}});
  }
});
frame.srcdoc = CARD;
</script>"""


@dataclass
class Card:
    """A card in its frame, and the calls and requests that its host got from it."""

    host: Host
    page: Page
    frame: FrameLocator
    calls: list[dict[str, Any]]
    requested: list[tuple[str, Any]]
    complaints: list[str] = field(default_factory=list[str])


@asynccontextmanager
async def with_apps(settings: Settings) -> AsyncGenerator[Host]:
    """Run a host that renders apps."""
    async with hosting(settings, extensions=[advertise(APPS, SETTINGS)]) as host:
        yield host


@asynccontextmanager
async def showing_card(
    browser: Browser, settings: Settings, **arguments: Any
) -> AsyncGenerator[Card]:  # fmt: skip
    """Show the card of the jobs that a call of agent_start started."""
    async with with_apps(settings) as host:
        [resource] = (await host.client.read_resource(URI)).contents
        assert isinstance(resource, TextResourceContents) and resource.mime_type == MIME_TYPE
        html = resource.text.replace("<head>", f'<head><meta http-equiv="Content-Security-Policy" content="{POLICY}">')
        page = await (context := await browser.new_context()).new_page()
        card = Card(host, page, page.frame_locator("#card"), [], [])
        page.on("console", lambda message: card.complaints.append(message.text))
        page.on("pageerror", lambda error: card.complaints.append(str(error)))

        async def start_result() -> Any:
            return (await host.client.call_tool("agent_start", {"wait_s": 0, **arguments})).model_dump(by_alias=True)

        async def call_server(name: str, values: dict[str, Any]) -> Any:
            card.calls.append({"name": name, **values})
            return (await host.client.call_tool(name, values)).model_dump(by_alias=True)

        def take_request(method: str, params: Any) -> None:
            card.requested.append((method, params))

        for name, function in (("startResult", start_result), ("callServer", call_server), ("requested", take_request)):
            await page.expose_function(name, function)  # pyright: ignore[reportUnknownMemberType]
        await page.set_content(HARNESS.replace("CARD", json.dumps(html).replace("</", "<\\/")))
        yield card
        await context.close()
        assert card.complaints == []


def build_options(script: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"metadata": {"emulate": json.dumps(script)}, **options}


@NEEDS_CHROMIUM
async def test_card_shows_a_job_until_its_end_and_costs_no_turn(browser: Browser, settings: Settings) -> None:
    hostile = "<img src=x onerror=alert(1)><script>parent.postMessage('x','*')</script> javascript:alert(1) " * 3
    options = build_options({"duration_s": 3, "text": hostile})
    async with showing_card(browser, settings, prompt="Wait <b>for</b> \u202ethis", options=options) as card:
        await expect(card.frame.locator("h1")).to_have_text("Wait <b>for</b> \\u202ethis")
        await expect(card.frame.locator(".status")).to_have_text("completed", timeout=60_000)
        await card.frame.get_by_text("Answer", exact=True).click()
        await expect(card.frame.locator("pre.text")).to_contain_text("<img src=x onerror=alert(1)>")
        assert await card.frame.locator("img, b, #jobs script").count() == 0
        assert {call["name"] for call in card.calls} == {"job_card"}
        job_id = card.calls[0]["job_ids"][0]
        context = [params for method, params in card.requested if method == "ui/update-model-context"]
        assert context == [{"content": [{"type": "text", "text": f"{job_id} is completed; get it with agent_poll."}]}]
        colours = await card.frame.locator("body").evaluate(
            "body => [getComputedStyle(body).color, getComputedStyle(document.documentElement).colorScheme]"
        )
        assert colours == ["rgb(1, 2, 3)", "dark"], "the card uses the host's colours"
        assert "ui/notifications/size-changed" in await card.page.evaluate("log")
        unread = (await card.host.call("agent_list"))["jobs"][0]
        assert unread["undelivered"] is True, "the model has not read it"


@NEEDS_CHROMIUM
async def test_card_cancels_a_job(browser: Browser, settings: Settings) -> None:
    options = build_options({"duration_s": 600})
    async with showing_card(browser, settings, prompts=["one", "two"], batch="b", options=options) as card:
        await expect(card.frame.locator("article")).to_have_count(2)
        first = card.frame.locator("article", has_text="one")
        await first.get_by_role("button", name="Cancel").click()
        await expect(first.locator(".status")).to_have_text("cancelled", timeout=60_000)
        await expect(card.frame.locator("article", has_text="two").locator(".status")).to_have_text("in progress")


APPROVAL: dict[str, Any] = {"server_label": "tracker", "name": "close", "arguments": {"id": "<b>42</b>"}}
ASKING: dict[str, Any] = {"duration_s": 1, "turns": [{"mcp_approval": APPROVAL}, {"text": "Over."}]}


@NEEDS_CHROMIUM
async def test_user_approves_a_call_in_the_card(browser: Browser, settings: Settings) -> None:
    options = build_options(ASKING, tools=[TRACKER])
    async with showing_card(browser, settings, prompt="Close it", options=options) as card:
        question = card.frame.locator(".question")
        await expect(question).to_contain_text("Allow tracker/close?", timeout=60_000)
        await expect(question.locator("pre")).to_contain_text('"id": "<b>42</b>"')
        await question.get_by_role("button", name="Allow").click()
        await expect(card.frame.locator(".status")).to_have_text("completed", timeout=60_000)


@NEEDS_CHROMIUM
async def test_user_always_allows_a_tool_in_the_card_and_revokes_that(browser: Browser, settings: Settings) -> None:
    other = {"mcp_approval": {**APPROVAL, "name": "open"}}
    script = {**ASKING, "turns": [{"mcp_approval": APPROVAL}, {"mcp_approval": APPROVAL}, other, {"text": "Over."}]}
    options = build_options(script, tools=[TRACKER])
    async with showing_card(browser, settings, prompt="Close it", options=options) as card:
        await card.frame.get_by_role("button", name="Always").click(timeout=60_000)
        await expect(card.frame.locator(".question")).to_contain_text("Allow tracker/open?", timeout=60_000)
        standing = card.frame.locator(".always")
        await expect(standing).to_contain_text("Always allowed until this job ends: tracker/close")
        await standing.get_by_role("button", name="Ask again").click()
        await expect(standing).to_have_count(0, timeout=60_000)
        await card.frame.get_by_role("button", name="Deny").click()
        await expect(card.frame.locator(".status")).to_have_text("completed", timeout=60_000)


@NEEDS_CHROMIUM
async def test_card_says_why_no_job_was_started(browser: Browser, settings: Settings) -> None:
    async with showing_card(browser, settings, prompt=" ") as card:
        await expect(card.frame.get_by_role("alert")).to_contain_text("empty")
        assert card.calls == []


async def list_tools(host: Host) -> list[dict[str, Any]]:
    return [tool.model_dump(by_alias=True, exclude_none=True) for tool in (await host.client.list_tools()).tools]


async def test_only_hosts_that_render_apps_are_offered_the_card(settings: Settings) -> None:
    static = load_answers()["handshake"]["tools/list"]["tools"]
    async with hosting(settings) as host:
        plain = await list_tools(host)
        assert (plain, len(plain)) == (static, 6)
        assert (await host.client.list_resources()).resources == []
        answer = await host.client.call_tool("job_card", {"job_ids": ["job_x"]})
        assert answer.is_error and isinstance(answer.content[0], TextContent)
        assert "Unknown tool" in answer.content[0].text
    async with with_apps(settings) as host:
        *offered, card = await list_tools(host)
        assert card["_meta"] == {"ui": {"resourceUri": URI, "visibility": ["app"]}}
        assert offered[0].pop("_meta") == {"ui": {"resourceUri": URI}}
        assert offered == static
        assert [(each.uri, each.mime_type) for each in (await host.client.list_resources()).resources] == [
            (URI, MIME_TYPE)
        ]


@pytest.mark.parametrize(
    "capabilities", [{APPS: {}}, {APPS: {"mimeTypes": ["text/html"]}}, {"example.com/x": SETTINGS}]
)
async def test_host_without_the_cards_form_is_offered_nothing(settings: Settings, capabilities: dict[str, Any]) -> None:
    extensions = [advertise(name, value) for name, value in capabilities.items()]
    async with hosting(settings, extensions=extensions) as host:
        assert len(await list_tools(host)) == 6


@pytest.mark.parametrize(
    ("action", "key"), [("approve", None), ("approve", ""), ("approve", "wrong"), ("always", "wrong"), ("x", None)]
)
async def test_model_cannot_approve_by_the_tool_of_the_card(settings: Settings, action: str, key: str | None) -> None:
    async with with_apps(settings) as host:
        started = await host.start(emulate=ASKING, options={"tools": [TRACKER]})
        job = {"job_ids": [started["job_id"]]}
        needs = (await host.end(started["job_id"]))["needs"]
        arguments = {**job, "call_id": needs[0]["call_id"]}
        assert "Only the user may approve" in await host.refused("job_card", action=action, key=key, **arguments)
        [shown] = (await host.call("job_card", **job))["jobs"]
        assert (shown["status"], len(shown["needs"])) == ("input_required", 1)
        [denied] = (await host.call("job_card", action="deny", **arguments))["jobs"]
        assert "needs" not in denied


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"job_ids": []},
        {"job_ids": "x"},
        {"batch": 1},
        {"action": "cancel"},
        {"job_ids": ["a", "b"], "action": "cancel"},
    ],
)
async def test_tool_of_the_card_refuses_calls_without_a_job(settings: Settings, arguments: dict[str, Any]) -> None:
    async with with_apps(settings) as host:
        assert "names no job" in await host.refused("job_card", **arguments)


@pytest.mark.parametrize(
    ("extensions", "is_answered"),
    [({}, True), ({"io.modelcontextprotocol/tasks": {}}, True), ({APPS: SETTINGS}, False)],
)
def test_front_door_leaves_hosts_that_render_apps_to_the_server(extensions: dict[str, Any], is_answered: bool) -> None:
    capabilities = {"extensions": extensions}
    envelope = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    }
    opening = {
        "protocolVersion": "2025-11-25",
        "capabilities": capabilities,
        "clientInfo": {"name": "h", "version": "1"},
    }
    requests: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": opening},
        {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": envelope}},
    ]
    for request in requests:
        reader, writer = os.pipe()
        door = FrontDoor(reader, writer, load_answers())
        assert door._answer_line(json.dumps(request).encode()) is is_answered or request["method"] == "initialize"  # pyright: ignore[reportPrivateUsage]
        os.close(writer)
        assert bool(os.read(reader, 10)) is is_answered
        os.close(reader)
