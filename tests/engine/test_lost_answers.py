"""Finished responses without their answer: the text of the stream is kept, and marked where it is cut."""

from base64 import b64encode
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hosts import hosting

from agent_jobs.emulator.server import RunningServer
from agent_jobs.rendering.output import list_files_with_data
from agent_jobs.settings.settings import Settings

TEXT = "the answer that was paid for. " * 200
ONLY_STREAMED = {"empty_terminal_event": True}


@pytest.mark.parametrize("mode", ["background_stream", "foreground"])
@pytest.mark.parametrize("more", [{}, {"no_deltas": True}, {"no_sequence_numbers": True}], ids=str)
@pytest.mark.parametrize("usage", [{}, None], ids=["usage", "no usage"])
async def test_answer_is_kept_when_the_final_event_has_no_output(
    settings: Settings, upstream: RunningServer, mode: Any, more: dict[str, Any], usage: Any
) -> None:
    script = {"duration_s": 2, "text": TEXT, "usage": usage, "faults": [ONLY_STREAMED | more]}
    async with hosting(replace(settings, mode=mode)) as host:
        answer = await host.end((await host.start(emulate=script))["job_id"])
    assert (answer["status"], answer["output"], answer.get("warning")) == ("completed", TEXT, None)
    assert upstream.emulator.counters()["creates"] == 1


async def test_answer_is_retrieved_when_its_stream_was_read_in_part_only(
    settings: Settings, upstream: RunningServer
) -> None:
    faults = [ONLY_STREAMED | {"drop": {"after_events": 9}}]
    async with hosting(settings) as host:
        answer = await host.end(
            (await host.start(emulate={"duration_s": 20, "text": TEXT, "faults": faults}))["job_id"]
        )
    assert (answer["status"], answer["output"]) == ("completed", TEXT)


async def test_streamed_text_is_the_answer_if_upstream_never_returns_it(
    settings: Settings, upstream: RunningServer
) -> None:
    faults = [{"completed_empty": 99, "eof_without_terminal": True}]
    async with hosting(settings, speed=50) as host:
        answer = await host.end(
            (await host.start(emulate={"duration_s": 2, "text": "short", "faults": faults}))["job_id"]
        )
    assert (answer["status"], answer["output"]) == ("completed", "short")
    assert "may be cut" in answer["warning"]


async def test_success_without_any_output_says_so(settings: Settings) -> None:
    faults = [{"completed_empty": 99}]
    async with hosting(replace(settings, follow=0), speed=50) as host:
        started = await host.start(emulate={"duration_s": 2, "faults": faults})
        answer = await host.end(started["job_id"])
    assert (answer["status"], answer["output"]) == ("completed", "")
    assert "without any output" in answer["warning"]


@pytest.mark.parametrize("more", [{}, {"no_deltas": True}, {"done_marker": True}], ids=str)
@pytest.mark.parametrize("served", [True, False], ids=["GET served", "GET not served"])
async def test_held_run_that_ends_after_its_last_item_is_completed(
    settings: Settings, upstream: RunningServer, more: dict[str, Any], served: bool
) -> None:
    if not served:
        upstream.queue_fault(on="retrieve", status=404, times=-1)
    script = {"duration_s": 2, "text": TEXT, "faults": [{"eof_without_terminal": True, **more}]}
    async with hosting(replace(settings, mode="foreground")) as host:
        answer = await host.end((await host.start(emulate=script))["job_id"])
    assert (answer["status"], answer["output"], answer.get("error")) == ("completed", TEXT, None)
    assert upstream.emulator.counters()["creates"] == 1


@pytest.mark.parametrize("eof", [True, False], ids=["closed", "reset"])
async def test_held_run_that_upstream_cuts_keeps_what_it_wrote_and_says_who_ended_it(
    settings: Settings, upstream: RunningServer, eof: bool
) -> None:
    upstream.queue_fault(on="retrieve", status=404, times=-1)
    fault = {"drop": {"after_events": 20}, "eof_without_terminal": eof}
    async with hosting(replace(settings, mode="foreground")) as host:
        started = await host.start(emulate={"duration_s": 5, "text": TEXT, "faults": [fault]})
        answer = await host.end(started["job_id"])
        result = await host.call("agent_result", job_id=started["job_id"])
    assert answer["error"]["code"] == "interrupted"
    assert "The provider ended the connection" in answer["error"]["message"]
    assert answer["output"]
    assert TEXT.startswith(answer["output"])
    assert "may be cut" in answer["warning"]
    assert result["output"] == answer["output"]


async def test_held_run_whose_process_ended_keeps_what_it_wrote(settings: Settings) -> None:
    held = replace(settings, mode="foreground")
    async with hosting(held) as host:
        started = await host.start(emulate={"duration_s": 100, "reasoning": 0, "text": TEXT})
        while not (await host.call("agent_result", job_id=started["job_id"], part="partial"))["partial"]:
            await host.call("agent_poll", job_id=started["job_id"], wait_s=1)
    async with hosting(held) as host:
        answer = await host.end(started["job_id"])
    assert "process that held its connection" in answer["error"]["message"]
    assert answer["output"]
    assert TEXT.startswith(answer["output"])


PNG = b"\x89PNG\r\n\x1a\nbytes"
URLS = {
    "base64": "data:image/png;base64," + b64encode(PNG).decode(),
    "upper case": "DATA:image/png;BASE64," + b64encode(PNG).decode(),
    "in lines": "data:image/png;base64," + b64encode(PNG).decode()[:8] + "\n" + b64encode(PNG).decode()[8:],
    "without padding": "data:image/png;base64," + b64encode(PNG).decode().rstrip("="),
    "percent": "data:image/png," + "".join(f"%{byte:02X}" for byte in PNG),
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
async def test_image_of_the_code_interpreter_in_a_data_address_is_saved(
    settings: Settings, upstream: RunningServer, url: str
) -> None:
    output = [{"type": "code_interpreter_call", "id": "ci_1", "outputs": [{"type": "image", "url": url}] * 2}]
    assert [data for _, data in list_files_with_data(output)] == [PNG, PNG]
    body = {"id": "resp_1", "status": "completed", "output": output}
    upstream.queue_fault(on="create", status=200, body=body)
    async with hosting(settings) as host:
        answer = await host.end((await host.start())["job_id"])
        files = (await host.call("agent_result", job_id=answer["job_id"], part="files"))["files"]
    assert [await anyio.Path(file["path"]).read_bytes() for file in files] == [PNG, PNG]
