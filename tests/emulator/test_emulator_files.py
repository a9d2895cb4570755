"""Files and containers, with the SDK as the client."""

import hashlib
import json
from typing import Any

import httpx2
import openai
import pytest
from emulator_client import MODEL, Client, Json
from openai import AsyncOpenAI
from openai.types import FileDeleted, FileObject
from openai.types.containers import FileListResponse, FileRetrieveResponse
from openai.types.responses import Response

from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.server import RunningServer, run_emulator

TABLE = ("table.csv", b"a,b\n1,2\n", "text/csv")
MADE = [{"filename": "sum.csv", "text": "sum\n3\n"}, {"filename": "naïve notes.txt", "text": "東京"}]


def code_interpreter(*file_ids: str) -> Any:
    return {"type": "code_interpreter", "container": {"type": "auto", "file_ids": list(file_ids)}}


async def run_code(sdk: AsyncOpenAI, *file_ids: str, **fields: Any) -> Response:
    """Run a response that writes files in a container."""
    script = {"emulate": json.dumps({"container_files": MADE, **fields.pop("emulate", {})})}
    asked: Json = {"tools": [code_interpreter(*file_ids)], "metadata": script, **fields}
    create: Any = sdk.responses.create  # its overloads do not have such fields
    return await create(model=MODEL, input="sum it up", **asked)


def list_cited_files(response: Response) -> list[Any]:
    """Return the container files that the response's text cites."""
    message = response.output[-1]
    assert message.type == "message" and message.content[0].type == "output_text"
    return [note for note in message.content[0].annotations if note.type == "container_file_citation"]


async def test_file_is_uploaded_read_listed_and_deleted(sdk: AsyncOpenAI) -> None:
    file = await sdk.files.create(file=TABLE, purpose="user_data")
    FileObject.model_validate(file.to_dict(), strict=True)
    assert (file.filename, file.bytes, file.purpose, file.expires_at) == ("table.csv", 8, "user_data", None)
    assert await sdk.files.retrieve(file.id) == file
    assert (await sdk.files.content(file.id)).content == TABLE[1]
    other = await sdk.files.create(file=("other.txt", b""), purpose="assistants")
    assert [found.id async for found in sdk.files.list()] == [other.id, file.id]
    assert [found.id async for found in sdk.files.list(purpose="user_data")] == [file.id]
    assert [found.id async for found in sdk.files.list(limit=1, order="asc")] == [file.id, other.id]
    deleted = await sdk.files.delete(file.id)
    FileDeleted.model_validate(deleted.to_dict(), strict=True)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    for gone in (sdk.files.retrieve, sdk.files.content, sdk.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            await gone(file.id)
        assert caught.value.body == {
            "message": f"No such File object: {file.id}",
            "type": "invalid_request_error",
            "param": "id",
            "code": None,
        }
    assert [found.id async for found in sdk.files.list()] == [other.id]


async def test_counters_and_log_prove_that_an_upload_was_removed(sdk: AsyncOpenAI, server: RunningServer) -> None:
    secret = b"the content of a file is not logged"
    files = [await sdk.files.create(file=(f"{number}.txt", secret), purpose="user_data") for number in range(2)]
    await sdk.files.delete(files[0].id)
    counters = server.emulator.counters()
    assert (counters["uploads"], counters["file_deletes"], counters["files_left"]) == (2, 1, 1)
    log = server.emulator.log()
    assert secret.decode() not in json.dumps(log)
    assert [(entry["operation"], entry["file_id"]) for entry in log if entry["entry"] == "request"] == [
        ("upload", files[0].id),
        ("upload", files[1].id),
        ("delete_file", files[0].id),
    ]
    uploaded = [entry for entry in log if entry["entry"] == "file"]
    assert [(entry["id"], entry["deleted"]) for entry in uploaded] == [(files[0].id, True), (files[1].id, False)]
    assert uploaded[0]["sha256"] == hashlib.sha256(secret).hexdigest()
    server.reset()
    assert server.emulator.counters()["files_left"] == 0


async def test_file_expires_as_requested() -> None:
    with run_emulator(time_scale=1e7) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="sk-test", max_retries=0) as sdk:
            expiry: Any = {"anchor": "created_at", "seconds": 3600}
            file = await sdk.files.create(file=TABLE, purpose="user_data", expires_after=expiry)
            assert file.expires_at == file.created_at + 3600
            with pytest.raises(openai.NotFoundError):
                while True:
                    await sdk.files.retrieve(file.id)
            assert server.emulator.counters()["files_left"] == 0
            expiry["seconds"] = 60
            with pytest.raises(openai.BadRequestError) as caught:
                await sdk.files.create(file=TABLE, purpose="user_data", expires_after=expiry)
            assert caught.value.param == "expires_after.seconds"


def test_upload_without_its_parts_is_refused(client: Client) -> None:
    def message(**fields: Any) -> str:
        answer = client.http.post("/files", **fields)
        assert answer.status_code == 400
        return answer.json()["error"]["message"]

    assert message(json={}) == "'file' is a required property"
    assert message(files={"file": TABLE}) == "'purpose' is a required property"
    assert message(files={"file": TABLE}, data={"purpose": "fun"}).startswith("'fun' is not one of ['assistants'")
    broken = {"content-type": "multipart/form-data"}
    assert "boundary" in message(content=b"x", headers=broken)


def test_faults_meet_uploads_deletes_and_downloads(client: Client, server: RunningServer) -> None:
    server.queue_fault(on="upload", match="table.csv", status=500)
    server.queue_fault(on="upload", drop="after_accept")
    server.queue_fault(on="delete_file", status=503)
    server.queue_fault(on="download", delay_s=0.1, after_accept=True, status=502)
    form: Any = {"files": {"file": TABLE}, "data": {"purpose": "user_data"}}
    assert client.http.post("/files", **form).status_code == 500
    with pytest.raises(httpx2.RemoteProtocolError):
        client.http.post("/files", **form)
    [lost] = client.http.get("/files").json()["data"]
    path = f"/files/{lost['id']}"
    assert [client.http.delete(path).status_code for _ in range(1)] == [503]
    assert [client.http.get(f"{path}/content").status_code for _ in range(2)] == [502, 200]
    assert client.http.delete(path).json()["deleted"]


async def test_run_leaves_files_in_a_container_and_cites_them(sdk: AsyncOpenAI) -> None:
    upload = await sdk.files.create(file=TABLE, purpose="user_data")
    response = await run_code(sdk, upload.id, include=["code_interpreter_call.outputs"])
    call = next(item for item in response.output if item.type == "code_interpreter_call")
    assert call.status == "completed" and "sum.csv" in (call.code or "") and call.outputs
    notes = list_cited_files(response)
    assert [note.filename for note in notes] == [file["filename"] for file in MADE]
    assert {note.container_id for note in notes} == {call.container_id}
    assert all(0 <= note.start_index < note.end_index <= len(response.output_text) for note in notes)
    files = sdk.containers.files
    for note, file in zip(notes, MADE, strict=True):
        content = await files.content.retrieve(note.file_id, container_id=call.container_id)
        assert content.content.decode() == file["text"]
        card = await files.retrieve(note.file_id, container_id=call.container_id)
        FileRetrieveResponse.model_validate(card.to_dict(), strict=True)
        assert (card.path, card.bytes) == (f"/mnt/data/{file['filename']}", len(file["text"].encode()))
    listed = [file async for file in files.list(call.container_id, order="asc")]
    FileListResponse.model_validate(listed[0].to_dict(), strict=True)
    assert [file.source for file in listed] == ["user", "assistant", "assistant"]
    assert listed[0].path.endswith("table.csv")
    assert (await sdk.containers.retrieve(call.container_id)).status == "running"


async def test_outputs_of_code_are_given_only_where_they_are_requested(sdk: AsyncOpenAI) -> None:
    calls = [item for item in (await run_code(sdk)).output if item.type == "code_interpreter_call"]
    assert [call.outputs for call in calls] == [None]


async def test_container_is_used_again_by_its_id_until_it_is_deleted(sdk: AsyncOpenAI, server: RunningServer) -> None:
    container_id = list_cited_files(await run_code(sdk))[0].container_id
    tool: Any = {"type": "code_interpreter", "container": container_id}
    script = {"emulate": json.dumps({"container_files": MADE[:1]})}
    again = await sdk.responses.create(model=MODEL, input="x", tools=[tool], metadata=script)
    assert list_cited_files(again)[0].container_id == container_id
    assert len([file async for file in sdk.containers.files.list(container_id)]) == 3
    with pytest.raises(openai.NotFoundError, match="File cfile_x not found on container"):
        await sdk.containers.files.content.retrieve("cfile_x", container_id=container_id)
    server.forget(container_id=container_id)
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.responses.create(model=MODEL, input="x", tools=[tool])
    assert caught.value.param == "tools[0].container"
    other = list_cited_files(await run_code(sdk))[0].container_id
    await sdk.containers.delete(other)
    with pytest.raises(openai.NotFoundError):
        await sdk.containers.retrieve(other)


async def test_unused_container_expires() -> None:
    with run_emulator(emulator=Emulator(100, container_idle_s=-1)) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="sk-test", max_retries=0) as sdk:
            note = list_cited_files(await run_code(sdk))[0]
            with pytest.raises(openai.NotFoundError):
                await sdk.containers.files.content.retrieve(note.file_id, container_id=note.container_id)


async def test_request_with_an_unknown_file_is_refused(sdk: AsyncOpenAI) -> None:
    file = await sdk.files.create(file=TABLE, purpose="user_data")
    asked: Any = [{"role": "user", "content": [{"type": "input_file", "file_id": file.id}]}]
    assert (await sdk.responses.create(model=MODEL, input=asked)).status == "completed"
    await sdk.files.delete(file.id)
    with pytest.raises(openai.BadRequestError, match=file.id) as caught:
        await sdk.responses.create(model=MODEL, input=asked)
    assert caught.value.param == "input[0].content[0].file_id"
    with pytest.raises(openai.BadRequestError, match=f"{file.id}, file-x") as caught:
        await run_code(sdk, file.id, "file-x")
    assert caught.value.param == "tools[0].container.file_ids"


def test_log_leaves_out_image_data(client: Client, server: RunningServer) -> None:
    body: Json = client.stream(emulate={"images": 1, "image_px": 300, "text": "Here."})[-1]["response"]
    picture = next(item["result"] for item in body["output"] if item["type"] == "image_generation_call")
    assert len(picture) > 300_000
    assert len(json.dumps(server.emulator.log())) < 2_000
