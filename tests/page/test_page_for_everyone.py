"""The page by keyboard alone, on a phone, in light and dark, and without scripts."""

import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from browsers import PageServer, Tab, serving_page, signed_in
from installed_browser import NEEDS_BROWSER, NO_BROWSER, find_browser
from playwright.async_api import Browser, expect

from agent_jobs.emulator.server import run_emulator
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

pytestmark = pytest.mark.skipif(find_browser() is None and NEEDS_BROWSER not in os.environ, reason=NO_BROWSER)

#: The least contrast that WCAG 2.2 AA requires of text of any size.
MIN_CONTRAST = 4.5
TRACKER = {"type": "mcp", "server_label": "tracker", "server_url": "https://tracker.example/mcp"}
CLOSING = {"server_label": "tracker", "name": "close_" + "x" * 80, "arguments": {"id": "y" * 200}}
#: An answer with every kind of Markdown.
ANSWER = (
    "# Title\n\nText with `code`, **bold** and a [link](https://example.com/" + "z" * 100 + ").\n\n> quote\n\n"
    "```python\ndef f(x): return 'text', 1  # comment\n```\n\n| a | b |\n|---|--:|\n| "
    + "w" * 300
    + " | 2 |\n\n- [ ] item\n"
)

#: Each visible text with its contrast: the colour against the first background behind it that is not transparent.
READ_CONTRASTS = """() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const backgroundOf = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
      if (colour[3] > 0) throw new Error(`a background that shines through: ${at.className}`);
    }
    return parse(getComputedStyle(document.documentElement).colorScheme === "dark" ? "0 0 0" : "255 255 255");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const elements = [...document.querySelectorAll("input, textarea, select")];
  while (walker.nextNode()) if (walker.currentNode.data.trim()) elements.push(walker.currentNode.parentElement);
  for (const element of new Set(elements)) {
    if (!element.checkVisibility() || element.closest("script, style, option")) continue;
    const style = getComputedStyle(element);
    const isSvg = element instanceof SVGElement;
    const text = luminance(parse(isSvg ? style.fill : style.color)), back = luminance(backgroundOf(element));
    const name = `${element.tagName}.${element.getAttribute("class")}: ${element.textContent.slice(0, 30)}`;
    found.push([name, (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05)]);
  }
  return found;
}"""
#: The focused element: its name, whether its outline is visible, and its position in the document.
READ_FOCUS = """() => {
  const focusable = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
  const all = [...document.querySelectorAll(focusable)];
  const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
  const isSeen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && box.width > 1 && box.left >= 0;
  return {index: all.filter(each => each.checkVisibility()).indexOf(at), name: at.textContent.trim() || at.id, isSeen,
          count: all.filter(each => each.checkVisibility()).length};
}"""


#: The texts in the tables of Spend that overflow their cell.
FIND_OVERHANGS = """() => [...document.querySelectorAll('.sums td, .sums th')].filter(cell => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  return cell.offsetParent && range.getBoundingClientRect().right > cell.getBoundingClientRect().right + 1;
}).map(cell => cell.textContent)"""


@pytest.fixture(scope="module")
async def paths(server: PageServer) -> dict[str, str]:
    """Return the pages, with a job in each state that looks different."""
    scripts: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "done": ({"duration_s": 1, "text": ANSWER}, {"tools": [{"type": "web_search"}], "max_output_tokens": 500}),
        "asking": ({"duration_s": 1, "mcp_approval": CLOSING}, {"tools": [TRACKER]}),
        "failed": ({"end": "failed", "error_code": "invalid_prompt"}, {}),
    }
    ids: dict[str, str] = {}
    for name, (script, options) in scripts.items():
        ids[name] = (await server.host.start(f"{name} " + "v" * 90, emulate=script, options=options))["job_id"]
        await server.host.end(ids[name])
    more: dict[str, Any] = {"emulate": {"duration_s": 6000}, "previous_job_id": ids["done"]}
    ids["running"] = (await server.host.start("running", **more))["job_id"]
    jobs = {name: f"/jobs/{job_id}" for name, job_id in ids.items()}
    fixed = {name: f"/{name}" for name in ("new", "spend", "health", "?words=done", "?batch=none", "jobs/unknown")}
    return {"jobs": "/", **jobs, **fixed}


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_has_enough_contrast(
    browser: Browser, server: PageServer, paths: dict[str, str], scheme: Any
) -> None:
    seen = 0
    async with signed_in(browser, server, color_scheme=scheme, java_script_enabled=True) as tab:
        for path in paths.values():
            await tab.page.goto(server.url + path)
            texts: list[tuple[str, float]] = await tab.page.evaluate(READ_CONTRASTS)
            weak = [(name, round(contrast, 2)) for name, contrast in texts if contrast < MIN_CONTRAST]
            assert weak == [], path
            seen += len(texts)
        tab.complaints[:] = [each for each in tab.complaints if "404" not in each]
    assert seen > 200


async def test_pages_need_no_sideways_scrolling(browser: Browser, server: PageServer, paths: dict[str, str]) -> None:
    async with signed_in(browser, server, java_script_enabled=False) as tab:
        for path in paths.values():
            await tab.open(path)
            for width in (360, 900, 1600):
                await tab.page.set_viewport_size({"width": width, "height": 800})
                over: list[int] = await tab.page.evaluate(
                    "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
                )
                assert over[0] <= over[1], (path, width)
        tab.complaints.clear()


@pytest.fixture
def priced_settings(tmp_path: Path) -> Iterator[Settings]:
    prices = tmp_path / "prices.toml"
    prices.write_text('[models."emulated-1"]\ninput = 2.0\noutput = 10.0\n')
    with run_emulator(time_scale=10.0) as upstream:
        yield Settings(api_key=SecretStr("sk-secret"), base_url=upstream.base_url, data_dir=tmp_path, prices=prices)


async def test_amounts_stay_inside_the_tables_of_spend(browser: Browser, priced_settings: Settings) -> None:
    async with (
        serving_page(priced_settings) as server,
        signed_in(browser, server, java_script_enabled=False) as tab,
    ):
        for model in ("emulated-1", *["emulated-unpriced"] * 2):
            started = await server.host.start(model, model=model, emulate={"duration_s": 0.2})
            await server.host.end(started["job_id"])
        await tab.open("/spend")
        await expect(tab.page.locator(".sums").first).to_contain_text(re.compile(r"\+ \d+ unknown"))
        for width in (360, 900, 1060, 1100, 1600):
            await tab.page.set_viewport_size({"width": width, "height": 800})
            over: list[str] = await tab.page.evaluate(FIND_OVERHANGS)
            assert over == [], width


async def test_start_is_seen_with_its_estimate_without_scrolling(browser: Browser, server: PageServer) -> None:
    async with signed_in(browser, server) as tab:
        await tab.open("/new")
        await tab.page.get_by_label("What should the model do?").fill("A line of a prompt.\n" * 60)
        await tab.page.locator("#estimate dl").wait_for()
        for width in (360, 900, 1600):
            await tab.page.set_viewport_size({"width": width, "height": 700})
            for part in (tab.page.get_by_role("button", name="Start"), tab.page.locator("#estimate")):
                await expect(part).to_be_in_viewport(ratio=1)


async def test_times_are_those_of_the_reader_and_texts_can_be_copied(browser: Browser, server: PageServer) -> None:
    options: dict[str, Any] = {
        "timezone_id": "Asia/Kolkata",
        "locale": "en-GB",
        "permissions": ["clipboard-read", "clipboard-write"],
    }
    async with signed_in(browser, server, **options) as tab:
        started = await server.host.start("Copy me", emulate={"duration_s": 0.2, "text": "**An** answer."})
        await server.host.end(started["job_id"])
        await tab.open(f"/jobs/{started['job_id']}")
        shown = tab.page.locator("aside time")
        at = datetime.fromisoformat(await shown.get_attribute("datetime") or "").astimezone(ZoneInfo("Asia/Kolkata"))
        await expect(shown).to_contain_text(f"{at:%H:%M:%S}")
        for name, text in (
            ("Copy the id", started["job_id"]),
            ("Copy the prompt", "Copy me"),
            ("Copy the answer", "**An**"),
        ):
            await tab.page.get_by_role("button", name=name).click()
            await tab.page.wait_for_function(
                "async text => (await navigator.clipboard.readText()).startsWith(text)", arg=text
            )


async def press_tab_through(tab: Tab) -> list[str]:
    """Press Tab until the end of the page, and return the names of the focused elements in order."""
    names: list[str] = []
    while True:
        await tab.page.keyboard.press("Tab")
        focus: dict[str, Any] = await tab.page.evaluate(READ_FOCUS)
        if focus["index"] < 0:
            return names
        assert focus["index"] == len(names), f"{focus['name']} is out of order"
        assert focus["isSeen"], f"the focus on {focus['name']} is not visible"
        names.append(focus["name"])
        if len(names) == focus["count"]:
            return names


async def test_every_control_is_reached_with_tab_in_the_order_of_the_page(
    browser: Browser, server: PageServer, paths: dict[str, str]
) -> None:
    async with signed_in(browser, server, java_script_enabled=True) as tab:
        for name in ("jobs", "asking", "done", "new", "spend"):
            await tab.page.goto(server.url + paths[name])
            names = await press_tab_through(tab)
            assert names[:3] == ["Skip to the content", "agent-jobs", "Jobs"], name
        await tab.page.goto(server.url)
        await tab.page.keyboard.press("Tab")
        await tab.page.keyboard.press("Enter")
        await tab.page.keyboard.press("Tab")
        assert (await tab.page.evaluate(READ_FOCUS))["name"] == "All", "the link skips the navigation"


async def test_job_is_started_answered_and_cancelled_by_keyboard(browser: Browser, server: PageServer) -> None:
    async with signed_in(browser, server) as tab:
        keyboard = tab.page.keyboard
        await tab.open("/new")
        await tab.page.get_by_label("What should the model do?").focus()
        await keyboard.type('By keyboard [emulate {"duration_s": 6000}]')
        await tab.page.get_by_role("button", name="Start").focus()
        await keyboard.press("Enter")
        await tab.page.wait_for_url("**/jobs/*")
        await tab.page.get_by_role("button", name="Cancel").focus()
        await keyboard.press("Space")
        await expect(tab.page.locator(".status").first).to_have_text("cancelled", timeout=60_000)


async def test_typed_text_stays_while_the_page_updates(browser: Browser, server: PageServer) -> None:
    call = {"name": "lookup", "arguments": {"id": 7}}
    options = {"tools": [{"type": "function", "name": "lookup", "parameters": {"type": "object"}}]}
    async with signed_in(browser, server) as tab:
        started = await server.host.start(emulate={"duration_s": 1, "function_calls": [call]}, options=options)
        other = await server.host.start(emulate={"duration_s": 6000})
        row = tab.page.locator(f"#row-{started['job_id']}")
        field = row.get_by_label("What does lookup return?")
        await field.press_sequentially("half a ")
        await expect(tab.page.locator(f"#row-{other['job_id']} .status")).to_have_text("in progress")
        await server.host.call("agent_cancel", job_id=other["job_id"])
        await expect(tab.page.locator(f"#row-{other['job_id']} .status")).to_have_text("cancelled")
        await expect(field).to_be_focused()
        await tab.page.keyboard.type("result")
        assert await field.input_value() == "half a result"
        await row.get_by_role("button", name="Send the result").click()
        await expect(row.locator(".status")).to_have_text("completed", timeout=60_000)
