"""Emulate the API: store the responses, the faults and the log, and serve the endpoints."""

import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .containers import Containers
from .conversations import Conversations, find_conversation_id
from .errors import ApiError, missing_key_error, no_stream_error, response_not_found_error, wrong_key_error
from .faults import Fault, FaultQueue, combine_faults
from .files import Files
from .items import check_outputs, list_input_items
from .models import Models
from .parameters import read_object
from .references import check_files, check_items
from .run import Clock, Run, count_tokens
from .script import Script, read_request
from .validate import check_create, check_mode
from .webhooks import WebhookSender
from .wire import Exchange

__all__ = ["Emulator"]

Json = dict[str, Any]
Handler = Callable[[Exchange], Awaitable[None]]

_STORED_S = 30 * 86_400.0  # emulated seconds for which OpenAI keeps a stored response
_PLURALS = {
    "create": "creates", "retrieve": "retrieves", "stream": "streams", "cancel": "cancels", "delete": "deletes",
    "upload": "uploads", "delete_file": "file_deletes",
}  # fmt: skip


class Emulator:
    """A Responses API that runs scripts instead of models."""

    def __init__(
        self,
        time_scale: float = 1.0,
        *,
        models: Iterable[str] = (),
        strict_store: bool = False,
        resume_window_s: float = 300.0,
        retention_s: float = 600.0,
        container_idle_s: float = 1200.0,
    ) -> None:
        self._clock = Clock(time_scale)
        self._models = Models(models)
        self._strict_store = strict_store
        self._resume_window_s = resume_window_s
        self._retention_s = retention_s
        self._runs: dict[str, Run] = {}
        self._created: list[Run] = []
        self._requests: list[Json] = []
        self._queued = FaultQueue()
        self._conversations = Conversations()
        self._files = Files(self._clock)
        self._containers = Containers(self._files, self._clock, container_idle_s)
        self._webhooks = WebhookSender(self._clock)
        self._tasks: TaskGroup | None = None
        self.app = Starlette(routes=[*self._api_routes(), *self._admin_routes()], lifespan=self._run_lifespan)

    def counters(self) -> Json:
        """Count the requests, by operation and by X-Client-Request-Id, and the uploads that were not deleted."""
        requests = list(self._requests)
        operations = Counter(entry["operation"] for entry in requests)
        counts: Json = {plural: operations.pop(name, 0) for name, plural in _PLURALS.items()}
        creates = [entry for entry in requests if entry["operation"] == "create"]
        accepted = [entry for entry in creates if entry["response_id"]]
        counts |= {
            "creates_by_request_id": _count_request_ids(creates),
            "accepted_by_request_id": _count_request_ids(accepted),
            "accepted": len(self._created),
            "files_left": self._files.count_left(),
        }
        return counts | operations

    def log(self) -> list[Json]:
        """Return every request in order, then every file that was uploaded, then every response that was created."""
        requests = [{"entry": "request", **entry} for entry in list(self._requests)]
        return requests + self._files.log() + [_build_log_entry(run) for run in list(self._created)]

    def queue_faults(self, given: Iterable[Mapping[str, Any]]) -> None:
        """Queue faults for later requests."""
        self._queued.add([Fault.read(fault) for fault in given])

    def send_webhooks(self, url: str, secret: str) -> None:
        """Send a signed webhook to this address whenever a background response ends; an empty one sends none."""
        self._webhooks.configure(url, secret)

    def forget(
        self, *, response_id: str | None = None, conversation_id: str | None = None, container_id: str | None = None
    ) -> None:
        """Delete a response, conversation or container, as the API does after days or minutes. The log stays.

        Raises:
            ApiError: The emulator has no such thing.
        """
        if response_id is not None:
            self._forget_run(self._find_run(response_id))
        if conversation_id is not None:
            self._conversations.forget(conversation_id)
        if container_id is not None:
            self._containers.forget(container_id)

    def reset(self) -> None:
        """Delete all responses, conversations, files, faults and requests."""
        for run in list(self._runs.values()):
            self._forget_run(run)
        stores = (self._conversations, self._files, self._containers)
        for kept in (self._created, self._requests, self._queued, *stores):
            kept.clear()

    @asynccontextmanager
    async def _run_lifespan(self, app: Starlette) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            async with self._webhooks.open():
                yield
                tasks.cancel_scope.cancel()

    def _api_routes(self) -> list[Route]:
        conversations, files, containers = self._conversations, self._files, self._containers
        table: list[tuple[str, str, str, Handler]] = [
            ("POST", "/responses", "create", self._create_response),
            ("POST", "/responses/input_tokens", "input_tokens", self._count_tokens),
            ("GET", "/responses/{response_id}", "retrieve", self._retrieve_response),
            ("DELETE", "/responses/{response_id}", "delete", self._delete_response),
            ("POST", "/responses/{response_id}/cancel", "cancel", self._cancel_response),
            ("GET", "/responses/{response_id}/input_items", "input_items", self._list_input_items),
            ("GET", "/models", "models", self._list_models),
            ("GET", "/models/{model_id}", "models", self._retrieve_model),
            ("POST", "/conversations", "conversations", conversations.create),
            ("GET", "/conversations/{conversation_id}", "conversations", conversations.retrieve),
            ("POST", "/conversations/{conversation_id}", "conversations", conversations.update),
            ("DELETE", "/conversations/{conversation_id}", "conversations", conversations.delete),
            ("GET", "/conversations/{conversation_id}/items", "conversations", conversations.list_items),
            ("POST", "/conversations/{conversation_id}/items", "conversations", conversations.add_items),
            ("GET", "/conversations/{conversation_id}/items/{item_id}", "conversations", conversations.retrieve_item),
            ("DELETE", "/conversations/{conversation_id}/items/{item_id}", "conversations", conversations.delete_item),
            ("POST", "/files", "upload", files.upload),
            ("GET", "/files", "files", files.list_files),
            ("GET", "/files/{file_id}", "files", files.retrieve),
            ("DELETE", "/files/{file_id}", "delete_file", files.delete),
            ("GET", "/files/{file_id}/content", "download", files.download),
            ("GET", "/containers/{container_id}", "containers", containers.retrieve),
            ("DELETE", "/containers/{container_id}", "containers", containers.delete),
            ("GET", "/containers/{container_id}/files", "containers", containers.list_files),
            ("GET", "/containers/{container_id}/files/{file_id}", "containers", containers.retrieve_file),
            ("GET", "/containers/{container_id}/files/{file_id}/content", "download", containers.download),
        ]
        return [
            Route(prefix + path, _Endpoint(operation, handle, self._serve_exchange), methods=[method])
            for prefix in ("/v1", "")
            for method, path, operation, handle in table
        ]

    def _admin_routes(self) -> list[Route]:
        return [
            Route("/_emulator/faults", self._post_faults, methods=["POST"]),
            Route("/_emulator/faults", self._delete_faults, methods=["DELETE"]),
            Route("/_emulator/webhooks", self._post_webhooks, methods=["POST"]),
            Route("/_emulator/counters", self._get_counters),
            Route("/_emulator/log", self._get_log),
            Route("/_emulator/forget", self._post_forget, methods=["POST"]),
            Route("/_emulator/reset", self._post_reset, methods=["POST"]),
            Route("/{path:path}", _Endpoint("unknown", _refuse_path, self._serve_exchange)),
        ]

    async def _serve_exchange(self, operation: str, handle: Handler, request: Request, send: Send) -> None:
        entry: Json = {
            "at": time.time(),
            "operation": operation,
            "response_id": request.path_params.get("response_id"),
            "file_id": request.path_params.get("file_id"),
            "client_request_id": request.headers.get("x-client-request-id"),
            "status": None,
            "job_id": None,
        }
        exchange = Exchange(request, send, self._clock, entry)
        if operation == "retrieve" and exchange.read_flag("stream"):
            entry["operation"] = "stream"
        try:
            exchange.raw = await request.body()
        except ClientDisconnect:
            return
        self._requests.append(entry)
        await exchange.run_until_gone(lambda: self._answer_request(handle, exchange))

    async def _answer_request(self, handle: Handler, exchange: Exchange) -> None:
        try:
            _check_api_key(exchange.request)
            exchange.fault = self._find_faults(exchange)
            if exchange.fault.is_refusal():
                await exchange.refuse()
            elif exchange.fault.drop == "before_headers":
                await exchange.drop()
            else:
                await handle(exchange)
        except ApiError as error:
            await exchange.send_error(error)

    def _find_faults(self, exchange: Exchange) -> Fault:
        """Return the faults for a request: the queued ones, its own, and those that its response was created with."""
        operation, response_id = exchange.entry["operation"], exchange.entry["response_id"] or ""
        text = exchange.raw.decode(errors="replace") + " ".join(exchange.request.path_params.values())
        lasting = Fault()
        if operation == "create":
            script, body = self._read_create_body(exchange)
            exchange.entry["job_id"] = read_object(body, "metadata").get("job_id")
            exchange.brought = FaultQueue(Fault.read(fault) for fault in script.faults)
        elif response_id in self._runs:
            exchange.brought = self._runs[response_id].brought
            lasting = self._runs[response_id].fault.select_lasting()
        queued = self._queued.take(operation, text)
        return combine_faults(lasting, queued, exchange.brought.take_all(operation, text))

    def _read_create_body(self, exchange: Exchange) -> tuple[Script, Json]:
        body = exchange.read_body()
        check_create(body, strict_store=self._strict_store)
        if exchange.fault.ignore_previous:
            body.pop("previous_response_id", None)
        try:
            before = self._find_previous_run(body)
            script, body = read_request(body, before.script.turns if before else None)
            for fault in script.faults:
                Fault.read(fault)
        except ValueError as error:
            raise ApiError(400, f"Invalid emulate directive: {error}", param="metadata.emulate") from None
        return script, body

    async def _create_response(self, exchange: Exchange) -> None:
        fault = exchange.fault
        script, body = self._read_create_body(exchange)
        check_mode(body, no_background=fault.refuse_background, no_background_stream=fault.refuse_background_stream)
        self._models.check(body)
        check_items(body, self._list_stored_item_ids)
        check_files(body, self._files.find_unknown)
        self._containers.check(body)
        if not (fault.ignore_previous or fault.fail_previous):
            check_outputs(self._list_previous_items(body), body.get("input"))
        run = self._accept_run(exchange, script, body)
        try:
            if body.get("stream") and not fault.json_instead_of_stream:
                wanted = read_object(body, "stream_options").get("include_obfuscation", True)
                await exchange.send_events(run, obfuscated=wanted)
            else:
                await exchange.send_json(await _wait_for_answer(run, fault))
        finally:
            if not run.background and not run.ended:
                self._forget_run(run)

    def _accept_run(self, exchange: Exchange, script: Script, body: Json) -> Run:
        container = self._containers.open(body, script.container_files)
        run = Run(f"resp_{secrets.token_hex(24)}", body, script, exchange.fault, self._clock, container)
        run.brought = exchange.brought
        run.client_request_id = exchange.entry["client_request_id"]
        exchange.entry["response_id"] = run.id
        self._runs[run.id] = run
        self._created.append(run)
        conversation = find_conversation_id(body)
        if conversation:
            self._conversations.hold(conversation, run)
        assert self._tasks is not None, "the app runs only with its lifespan"
        self._tasks.start_soon(self._play_run, run, conversation)
        return run

    async def _play_run(self, run: Run, conversation: str) -> None:
        await run.play()
        self._conversations.append(conversation, run)
        if run.background and run.ended:
            await self._webhooks.send(run, self._queued.take("webhook", run.id))

    def _find_previous_run(self, body: Json) -> Run | None:
        conversation = find_conversation_id(body)
        if conversation:
            return self._conversations.find_last_run(conversation)
        return self._runs.get(str(body.get("previous_response_id")))

    def _list_previous_items(self, body: Json) -> list[Json]:
        previous_id = body.get("previous_response_id")
        if previous_id:
            try:
                return self._find_run(previous_id).output
            except ApiError:
                raise ApiError(
                    400,
                    f"Previous response with id '{previous_id}' not found.",
                    param="previous_response_id",
                    code="previous_response_not_found",
                ) from None
        conversation = find_conversation_id(body)
        if conversation:
            return self._conversations.items(conversation)
        return []

    def _list_stored_item_ids(self) -> Iterator[str]:
        yield from self._conversations.list_item_ids()
        for run in self._runs.values():
            if run.body.get("store") is not False and not self._is_expired(run):
                yield from (item["id"] for item in run.output)

    def _find_run(self, response_id: str, fault: Fault | None = None) -> Run:
        run = self._runs.get(response_id)
        if run is None:
            raise response_not_found_error(response_id)
        run.catch_up()
        if self._is_expired(run) or self._is_not_yet_visible(run, fault or run.fault):
            raise response_not_found_error(response_id)
        return run

    def _is_expired(self, run: Run) -> bool:
        store = run.body.get("store")
        kept_s = self._retention_s
        if store:
            kept_s = _STORED_S
        if store is False and not run.background:
            kept_s = 0.0
        return self._clock.now() > run.ended_s + kept_s

    def _is_not_yet_visible(self, run: Run, fault: Fault) -> bool:
        now_s = self._clock.now()
        after_end = run.ended and now_s < run.ended_s + fault.not_found_after_end_s
        return after_end or now_s < run.created_s + fault.not_found_for_s

    def _forget_run(self, run: Run) -> None:
        run.abandon()
        self._runs.pop(run.id, None)

    async def _retrieve_response(self, exchange: Exchange) -> None:
        run = self._find_requested_run(exchange)
        fault = exchange.fault
        if exchange.read_flag("stream") and not (fault.json_instead_of_stream or fault.json_to_attach):
            await self._resume_stream(exchange, run)
            return
        if fault.poll_after_ms is not None:
            exchange.headers["openai-poll-after-ms"] = str(fault.poll_after_ms)
        await exchange.send_json(_show_response(run, fault))

    async def _resume_stream(self, exchange: Exchange, run: Run) -> None:
        for created_so, wanted in ((run.background, "background"), (run.body.get("stream"), "stream")):
            if not created_so:
                raise no_stream_error(
                    f"This response cannot be streamed because it was not created with {wanted}=true."
                )
        if self._clock.now() > run.created_s + self._resume_window_s:
            minutes = f"{self._resume_window_s / 60:g}"
            raise no_stream_error(
                f"This response can no longer be streamed because it is more than {minutes} minutes old"
            )
        after = exchange.read_number("starting_after", -1)
        await exchange.send_events(run, after, obfuscated=exchange.read_flag("include_obfuscation", default=True))

    async def _cancel_response(self, exchange: Exchange) -> None:
        run = self._find_requested_run(exchange)
        fault = exchange.fault
        if not run.background:
            raise ApiError(400, "Cannot cancel a synchronous response.")
        if run.ended and run.status != "cancelled" and fault.cancel_status != 200:
            raise ApiError(fault.cancel_status or 400, f"Cannot cancel a {run.status} response.")
        answer = run.snapshot()
        if not run.ended:
            confirmed = answer | {"status": "cancelled"}
            run.cancel(fault)
            answer = run.snapshot()
            if fault.complete_after_cancel:
                answer = confirmed
        await exchange.send_json(answer)

    async def _delete_response(self, exchange: Exchange) -> None:
        run = self._find_requested_run(exchange)
        self._forget_run(run)
        await exchange.send_json({"id": run.id, "object": "response", "deleted": True})

    async def _list_input_items(self, exchange: Exchange) -> None:
        run = self._find_requested_run(exchange)
        await exchange.send_json(exchange.read_page(list_input_items(run.body.get("input"), run.id)))

    async def _count_tokens(self, exchange: Exchange) -> None:
        await exchange.send_json(
            {"object": "response.input_tokens", "input_tokens": count_tokens(exchange.read_body())}
        )

    async def _list_models(self, exchange: Exchange) -> None:
        await exchange.send_json(self._models.list_cards())

    async def _retrieve_model(self, exchange: Exchange) -> None:
        await exchange.send_json(self._models.find_card(exchange.request.path_params["model_id"]))

    def _find_requested_run(self, exchange: Exchange) -> Run:
        if exchange.fault.no_retrieve:
            raise ApiError(404, "Not Found")
        return self._find_run(exchange.request.path_params["response_id"], exchange.fault)

    async def _post_faults(self, request: Request) -> JSONResponse:
        given: Any = await request.json()
        try:
            self.queue_faults(cast("list[Json]", given if isinstance(given, list) else [given]))
        except ValueError as error:
            return JSONResponse(ApiError(400, str(error)).body(), status_code=400)
        return JSONResponse({"queued": True})

    async def _post_webhooks(self, request: Request) -> JSONResponse:
        given: Json = await request.json()
        self.send_webhooks(str(given.get("url") or ""), str(given.get("secret") or ""))
        return JSONResponse({"url": given.get("url")})

    async def _delete_faults(self, request: Request) -> JSONResponse:
        self._queued.clear()
        return JSONResponse({"queued": False})

    async def _get_counters(self, request: Request) -> JSONResponse:
        return JSONResponse(self.counters())

    async def _get_log(self, request: Request) -> JSONResponse:
        return JSONResponse(self.log())

    async def _post_forget(self, request: Request) -> JSONResponse:
        try:
            self.forget(**await request.json())
        except ApiError as error:
            return JSONResponse(error.body(), status_code=error.status)
        except TypeError:
            return JSONResponse(ApiError(400, "Give a response_id, conversation_id or container_id.").body(), 400)
        return JSONResponse({"forgotten": True})

    async def _post_reset(self, request: Request) -> JSONResponse:
        self.reset()
        return JSONResponse({"reset": True})


@dataclass(frozen=True)
class _Endpoint:
    """An ASGI app for one operation."""

    operation: str
    handle: Handler
    exchange: Callable[[str, Handler, Request, Send], Awaitable[None]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.exchange(self.operation, self.handle, Request(scope, receive), send)


async def _refuse_path(exchange: Exchange) -> None:
    request = exchange.request
    raise ApiError(404, f"Invalid URL ({request.method} {request.url.path})")


def _check_api_key(request: Request) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    key = request.headers.get("api-key") or (token.strip() if scheme.lower() == "bearer" else "")
    if not key:
        raise missing_key_error()
    if key == "invalid":
        raise wrong_key_error(key)


def _count_request_ids(entries: Iterable[Json]) -> dict[str, int]:
    return dict(Counter(entry["client_request_id"] for entry in entries if entry["client_request_id"]))


async def _wait_for_answer(run: Run, fault: Fault) -> Json:
    if run.background and not fault.complete_at_once:
        return await run.wait_until_created()
    return await run.wait_until_ended()


def _show_response(run: Run, fault: Fault) -> Json:
    """Return a response object as the fault changes it."""
    shown = run.snapshot()
    if fault.id_changes:
        shown["id"] = f"resp_{secrets.token_hex(208)}"
    if fault.unknown_status and not run.ended:
        shown["status"] = fault.unknown_status
    if run.status == "completed" and run.empty_answers < fault.completed_empty:
        run.empty_answers += 1
        shown |= {"output": [], "usage": None}
    return shown


def _build_log_entry(run: Run) -> Json:
    return {
        "entry": "response",
        "id": run.id,
        "client_request_id": run.client_request_id,
        "metadata": read_object(run.body, "metadata"),
        "background": run.background,
        "ended": run.ended,
        "status": run.status,
        "text": run.read_output_text(),
        "streamed": run.read_streamed_text(),
    }
