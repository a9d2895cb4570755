"""A person watches, answers, searches and starts jobs in a real browser."""

import os
from typing import Any

import anyio
import pytest
from browsers import PageServer, Tab, signed_in
from installed_browser import NEEDS_BROWSER, NO_BROWSER, find_browser
from playwright.async_api import Browser, expect

pytestmark = pytest.mark.skipif(find_browser() is None and NEEDS_BROWSER not in os.environ, reason=NO_BROWSER)

HOSTILE = (
    "# Result <script>document.title='hacked'</script>\n\n"
    "<img src=x onerror=\"document.title='hacked'\"> <svg onload=\"document.title='hacked'\"></svg>\n\n"
    "[a](javascript:document.title='hacked') [b](data:text/html,<script>1</script>) [c](https://example.com/ok)\n\n"
    "![picture](https://example.com/tracking.png)\n\n"
    "\u202egnp.exe\u202c <iframe src='https://example.com'></iframe> <style>body{display:none}</style>\n\n"
    "```python\ndef f(x): return '</code><script>1</script>'\n```\n"
)


async def open_job(tab: Tab, **emulate: Any) -> str:
    """Start a job from the host, and open its page."""
    started = await tab.server.host.start(emulate=emulate, options={"tools": [{"type": "web_search"}]})
    await tab.open(f"/jobs/{started['job_id']}")
    return started["job_id"]


async def test_job_of_a_host_appears_grows_and_finishes_with_numbered_sources(
    browser: Browser, server: PageServer
) -> None:
    async with signed_in(browser, server) as tab:
        started = await tab.server.host.start(
            "Compare the sources", emulate={"duration_s": 40, "searches": 3, "text": "A long answer. " * 20}
        )
        row = tab.page.locator(f"#row-{started['job_id']}")
        await expect(row).to_contain_text("Compare the sources")
        await row.get_by_role("link").click()
        await expect(tab.page.get_by_role("heading", name="Text so far")).to_be_visible(timeout=60_000)
        await expect(tab.page.get_by_role("heading", name="Answer")).to_be_visible(timeout=60_000)
        await expect(tab.page.locator(".status").first).to_have_text("completed")
        await expect(tab.page.locator(".answer")).to_contain_text("[1]")
        assert await tab.page.locator("section[aria-labelledby=sources] li").count() == 3
        await tab.page.locator(".answer").get_by_role("link", name="[3]").first.click()
        await expect(tab.page.locator(".sources li:target")).to_have_count(1)
        assert await tab.page.locator(".steps li", has_text="web search").count() == 3


async def test_link_of_another_web_page_opens_the_job_without_a_second_sign_in(
    browser: Browser, server: PageServer
) -> None:
    async with signed_in(browser, server) as tab:
        job_id = await open_job(tab, duration_s=0.2)
        link = f'<a href="{server.url}/jobs/{job_id}">the job</a>'
        await tab.page.route("http://chat.example/", lambda route: route.fulfill(content_type="text/html", body=link))
        await tab.page.goto("http://chat.example/")
        await tab.page.get_by_role("link", name="the job").click()
        await expect(tab.page.get_by_text(job_id).first).to_be_visible(timeout=60_000)
        assert tab.page.url == f"{server.url}/jobs/{job_id}"


async def test_hostile_answer_stays_inert(browser: Browser, server: PageServer) -> None:
    async with signed_in(browser, server) as tab:
        await open_job(tab, duration_s=1, text=HOSTILE)
        answer = tab.page.locator(".answer")
        await expect(answer.locator("pre")).to_be_visible(timeout=60_000)
        assert await tab.page.title() != "hacked"
        for tag in ("script", "img", "svg", "iframe", "style"):
            assert await answer.locator(tag).count() == 0, tag
        links = [await link.get_attribute("href") for link in await answer.locator("a[href]").all()]
        assert [link for link in links if link and not link.startswith("#source-")] == [
            "https://example.com/ok",
            "https://example.com/tracking.png",
        ]
        assert "\u202e" not in await answer.inner_text()


async def test_page_is_readable_without_scripts(browser: Browser, server: PageServer) -> None:
    async with signed_in(browser, server, java_script_enabled=False) as tab:
        started = await tab.server.host.start("Plain", emulate={"duration_s": 1, "text": "The quokka."})
        await tab.server.host.end(started["job_id"])
        await tab.open("/")
        await tab.page.get_by_role("link", name="Plain").click()
        await expect(tab.page.locator(".answer")).to_have_text("The quokka.")
        await tab.page.get_by_label("Search prompts and answers").fill("quokka")
        await tab.page.keyboard.press("Enter")
        await expect(tab.page.locator("mark").first).to_have_text("quokka")


async def test_approval_on_the_page_lets_the_job_continue(browser: Browser, server: PageServer) -> None:
    async with signed_in(browser, server) as tab:
        tool = {"type": "mcp", "server_label": "tracker", "server_url": "https://tracker.example/mcp"}
        approval = {"server_label": "tracker", "name": "close", "arguments": {"id": 42}}
        started = await tab.server.host.start(
            emulate={"duration_s": 1, "text": "Closed.", "mcp_approval": approval}, options={"tools": [tool]}
        )
        await tab.open(f"/jobs/{started['job_id']}")
        question = tab.page.locator(".question")
        await expect(question).to_contain_text("tracker/close", timeout=60_000)
        await expect(question).to_contain_text("42")
        await question.get_by_role("button", name="Allow once").click()
        await expect(tab.page.locator(".answer")).to_be_visible(timeout=60_000)


async def test_job_is_started_cancelled_and_deleted_on_the_page(browser: Browser, server: PageServer) -> None:
    async with signed_in(browser, server) as tab:
        await tab.open("/new")
        await tab.page.get_by_label("What should the model do?").fill('Wait [emulate {"duration_s": 600}]')
        await expect(tab.page.locator("#estimate")).to_contain_text("tokens")
        await tab.page.get_by_role("button", name="Start").click()
        await tab.page.wait_for_url("**/jobs/*")
        job_id = tab.page.url.rpartition("/")[2]
        await tab.page.get_by_role("button", name="Cancel").click()
        await expect(tab.page.locator(".status").first).to_have_text("cancelled", timeout=60_000)
        await tab.page.get_by_text("Delete", exact=True).click()
        await tab.page.get_by_role("button", name="Delete it").click()
        await expect(tab.page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
        await expect(tab.page.locator(f"#row-{job_id}")).to_have_count(0)


async def test_follow_up_continues_the_conversation(browser: Browser, server: PageServer) -> None:
    async with signed_in(browser, server) as tab:
        job_id = await open_job(tab, duration_s=1, text="First.")
        await tab.page.get_by_label("Question").fill('And then? [emulate {"duration_s":1,"text":"Second."}]')
        await tab.page.get_by_role("button", name="Ask").click()
        await expect(tab.page.locator(".answer")).to_contain_text("Second", timeout=60_000)
        lineage = tab.page.locator(".lineage")
        await expect(lineage.locator("[aria-current]")).to_contain_text("And then?")
        await lineage.get_by_role("link").click()
        await expect(tab.page).to_have_url(f"{server.url}/jobs/{job_id}")
        await expect(tab.page.locator(".lineage .depth-1")).to_contain_text("And then?")
        await tab.open("/")
        below = tab.page.locator(f"#row-{job_id} + tr")
        await expect(below.locator(".depth-1")).to_contain_text("And then?")


async def test_long_answer_is_shown_in_full(browser: Browser, server: PageServer) -> None:
    async with signed_in(browser, server) as tab:
        with anyio.fail_after(100):
            await open_job(tab, duration_s=1, text="<b>" + "long text " * 200_000 + "END")
            await expect(tab.page.locator(".answer")).to_contain_text("END", timeout=80_000)
        assert await tab.page.locator(".answer b").count() == 0
