"""The imports that each package or module may have. A new module at the top level needs a row here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent_jobs

SOURCE = Path(agent_jobs.__file__).parent

#: Modules of plain values and functions that every package may import.
SHARED = {"backoff", "clock", "errors", "files", "text", "validation", "web_address"}
PURE = {
    "callback_urls", "errors", "jobs", "rendering", "request", "strict_schema", "text", "validation", "web_address",
}  # fmt: skip
FACE = {"", "app", "wiring", "engine", "rendering", "request", "jobs", "settings", *SHARED}

#: The packages and modules that each one may import. `""` is the package itself, which has only the version.
ALLOWED: dict[str, set[str]] = {
    "": set(),
    "backoff": set(),
    "errors": set(),
    "clock": set(),
    "text": set(),
    "files": {"errors"},
    "validation": {"errors", "text"},
    "web_address": set(),
    "ctrl_c": set(),
    "process_group": set(),
    "strict_schema": set(),
    "jsonrpc": {"files", "text"},
    "jobs": {"errors", "text"},
    "callback_urls": {"web_address"},
    "settings": {"callback_urls", "owner_name", *SHARED},
    "request": {"jobs", "strict_schema", *SHARED},
    "pricing": {"jobs", *SHARED},
    "rendering": {"jobs", "request", *SHARED},
    "attachments": SHARED,
    "upstream": SHARED,
    "install": {"", *SHARED},
    "notices": {"callback_urls", "settings", *SHARED},
    "toolbox": {"", "jsonrpc", "process_group", "strict_schema", *SHARED},
    "store": {"jobs", *SHARED},
    "token_format": set(),
    "owner_name": set(),
    "engine": {
        "", "callback_urls", "owner_name", "token_format", "store", "upstream", "request",
        "attachments", "process_group", "toolbox", "pricing", "rendering", "jobs", *SHARED,
    },
    "wiring": {
        "engine", "store", "upstream", "request", "toolbox", "pricing", "jobs", "settings",
        "notices", "ctrl_c", *SHARED,
    },
    "app": {"wiring", "engine", "store", "upstream", "request", "pricing", "jobs", "settings", "notices", *SHARED},
    "mcp_server": {"jsonrpc", *FACE},
    "team_server": {"ctrl_c", "mcp_server", "owner_name", "page", "token_format", *FACE},
    "page": {"engine", "jobs", "rendering", "request", "token_format", *SHARED},
    "cli": {
        "mcp_server", "team_server", "page", "pricing", "toolbox", "install", "emulator", "ctrl_c",
        "process_group", "owner_name", "notices",
        *FACE,
    },
    "__main__": {"cli", "mcp_server", "ctrl_c"},
    "emulator": set(),
}  # fmt: skip

#: The modules of the settings that each of them may import.
INSIDE_SETTINGS: dict[str, set[str]] = {
    "config_folder": set(),
    "env_file": set(),
    "key_mistakes": set(),
    "variable_names": set(),
    "values": set(),
    "address_values": {"values"},
    "callback_hosts": {"values"},
    "notice_targets": {"values"},
    "path_values": {"values"},
    "secret_values": {"key_mistakes", "values"},
    "declaration": {"values"},
    "team_settings": {"address_values", "declaration", "path_values", "values"},
    "stored_keys": {"key_mistakes", "secret_values", "values"},
    "settings": {
        "callback_hosts", "declaration", "notice_targets", "path_values", "secret_values", "stored_keys",
        "team_settings", "values", "variable_names",
    },
    "settings_file": {"secret_values", "settings", "stored_keys", "values", "variable_names"},
    "missing_key": {"settings", "stored_keys"},
    "configuration": {"config_folder", "settings", "settings_file", "stored_keys"},
}  # fmt: skip

#: The modules of the engine that each of them may import. The faces import only `engine.engine`.
INSIDE_ENGINE: dict[str, set[str]] = {
    "step_result": set(),
    "run_limits": set(),
    "owner_limits": set(),
    "context_check": set(),
    "start_defaults": set(),
    "inspection": {
        "owner_registry", "metrics", "stored_jobs", "event_feed", "job_waiter", "live_text", "owner_clients", "start",
        "owner_files", "webhook_intake", "worker",
    },
    "job_control": {"adopt_response", "job_waiter", "replies", "read_again", "inspection"},
    "shared_key_check": set(),
    "owner_clients": {"live_text", "owner_limits", "step", "step_result"},
    "key_pause": set(),
    "retrieve": set(),
    "live_text": set(),
    "forecast": set(),
    "stream": {"live_text", "read_again"},
    "finalize": {"read_again", "owner_files"},
    "on_finish_command": set(),
    "on_finish": {"failure_log"},
    "replies": set(),
    "owner_registry": {"owner_limits"},
    "metrics": set(),
    "event_feed": {"metrics"},
    "read_again": set(),
    "failure_log": set(),
    "waits": set(),
    "job_waiter": {"read_again", "waits"},
    "adopt_response": set(),
    "webhook_intake": {"failure_log"},
    "callbacks": {"failure_log"},
    "owner_files": set(),
    "callback_check": set(),
    "trace_parent": set(),
    "job_traces": {"failure_log"},
    "span_exporter": {"job_traces"},
    "poll_planner": {"run_limits", "step_result"},
    "follow_up": {"context_check", "read_again"},
    "retry_job": set(),
    "stored_jobs": {"owner_clients"},
    "start": {
        "callback_check", "context_check", "follow_up", "forecast", "owner_limits", "retry_job", "shared_key_check",
        "start_defaults", "owner_files", "trace_parent",
    },
    "resend": {"finalize"},
    "request_adapter": {"run_limits"},
    "unwatched_retriever": {"failure_log", "finalize", "resend", "retrieve"},
    "background_check": {"retrieve", "stream", "step_result"},
    "stream_step": {"poll_planner", "read_again", "run_limits", "resend", "step_result", "stream"},
    "poll": {
        "finalize", "key_pause", "poll_planner", "run_limits", "resend", "retrieve", "step_result", "stream",
        "stream_step",
    },
    "launch": {
        "request_adapter", "background_check", "finalize", "key_pause", "read_again", "run_limits", "resend",
        "step_result", "stream", "stream_step",
    },
    "tool_loop": {"finalize", "owner_limits", "replies", "read_again", "run_limits", "step_result"},
    "step": {
        "finalize", "key_pause", "launch", "live_text", "run_limits", "poll", "poll_planner", "resend", "step_result",
        "stream", "stream_step", "tool_loop",
    },
    "worker": {"stored_jobs", "live_text", "owner_clients", "run_limits", "step_result"},
    "engine": {
        "failure_log", "read_again", "metrics", "stored_jobs", "job_waiter", "live_text", "start", "job_control",
        "inspection", "worker",
    },
}  # fmt: skip

#: The packages whose modules have a table of their own.
INSIDE = {"settings": INSIDE_SETTINGS, "engine": INSIDE_ENGINE}

#: Packages of which others may import only these modules. The engine is entered only by `engine.engine`.
SOME_MODULES: dict[tuple[str, str], set[str]] = {
    ("rendering", "request"): {"json_schema"},
    ("notices", "settings"): {"notice_targets", "values"},
    ("cli", "pricing"): {"price_file", "prices"},
    ("cli", "toolbox"): {"config"},
}

#: The packages and modules that may import a library. Those without a row are open to all, except pure modules.
OUTSIDE: dict[str, set[str]] = {
    "anyio": {
        "app",
        "cli",
        "clock",
        "emulator",
        "engine",
        "mcp_server",
        "notices",
        "page",
        "store",
        "team_server",
        "toolbox",
        "upstream",
        "wiring",
    },
    "httpx2": {"emulator", "notices", "team_server", "toolbox", "upstream"},
    "jwt": {"team_server"},
    "standardwebhooks": {"team_server"},
    "prometheus_client": {"team_server"},
    "aiosqlite": {"store"},
    "asyncpg": {"store"},
    "opentelemetry": {"engine"},
    "sqlite3": {"store"},
    "mcp": {"cli", "mcp_server", "team_server", "toolbox"},
    "mcp_types": {"cli", "jsonrpc", "mcp_server", "team_server", "toolbox"},
    "pydantic": {"mcp_server", "toolbox"},
    "jsonschema": {"request"},
    "referencing": {"request"},
    "platformdirs": {"settings"},
    "genai_prices": {"pricing"},
    "pathspec": {"attachments"},
    "click": {"cli"},
    "rich": {"cli"},
    "tomlkit": {"cli", "install"},
    "keyring": {"settings"},
    "starlette": {"emulator", "page", "team_server"},
    "uvicorn": {"cli", "emulator", "page", "team_server"},
    "jinja2": {"page"},
    "nh3": {"page"},
    "sse_starlette": {"page"},
}
UNTOUCHED_BY_THE_PURE = {"asyncio", "os", "time", "random", "secrets", "socket", "logging", "threading", "subprocess"}


def find_part(module: str) -> str | None:
    """Return the package or module of a dotted name, or None if it is not part of agent-jobs."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "agent_jobs" else None


def find_imports(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Yield the dotted names that a module imports anywhere in it, relative ones resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def find_forbidden(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return the imports of this module that the tables forbid."""
    here = find_part(module)
    assert here is not None
    wrong: list[str] = []
    for name in find_imports(source, module, is_package=is_package):
        part, outside = find_part(name), name.partition(".")[0]
        if part is not None and part not in ALLOWED:
            part = ""  # `from agent_jobs import __version__`
        if part is None:
            fine = here in OUTSIDE.get(outside, {here}) and not (here in PURE and outside in UNTOUCHED_BY_THE_PURE)
        elif part == here and part in INSIDE:
            fine = may_import_inside(INSIDE[part], module, name)
        elif (here, part) in SOME_MODULES:
            fine = name.removeprefix(f"agent_jobs.{part}.").partition(".")[0] in SOME_MODULES[here, part]
        elif part == "engine" and here not in {"app", "wiring"}:
            fine = part in ALLOWED[here] and name.startswith("agent_jobs.engine.engine.")
        else:
            fine = part == here or part in ALLOWED[here]
        if not fine:
            wrong.append(f"{module} imports {name}")
    return wrong


def may_import_inside(table: dict[str, set[str]], module: str, name: str) -> bool:
    """Return True if a module of a package may import this dotted name of the same package."""
    importer, part = module.split(".")[2], name.split(".")[2]
    return part in table[importer]


def list_modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@pytest.mark.parametrize(("module", "path"), [pytest.param(*found, id=found[0]) for found in list_modules()])
def test_module_imports_only_from_below(module: str, path: Path):
    assert find_part(module) in ALLOWED, "a new package or module needs a row in ALLOWED"
    assert find_forbidden(path.read_text(), module, is_package=path.name == "__init__.py") == []


def test_only_faces_import_the_app_and_only_the_command_line_the_emulator():
    assert {part for part, below in ALLOWED.items() if "app" in below} == {"mcp_server", "team_server", "cli"}
    assert {part for part, below in ALLOWED.items() if "emulator" in below} == {"cli"}
    assert {part for part, below in ALLOWED.items() if {"upstream", "store"} <= below} == {"engine", "app", "wiring"}


@pytest.mark.parametrize("table", [ALLOWED, *INSIDE.values()], ids=["packages", *INSIDE])
def test_table_has_no_cycle(table: dict[str, set[str]]):
    below = {part: set(parts) for part, parts in table.items()}
    while below:
        bottom = {part for part, parts in below.items() if not parts & below.keys()}
        assert bottom, f"these import each other in a cycle: {sorted(below)}"
        below = {part: parts for part, parts in below.items() if part not in bottom}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("agent_jobs.jobs.job", "from agent_jobs.store.base import Store"),
        ("agent_jobs.jobs.job", "import time"),
        ("agent_jobs.rendering.answers", "from asyncio import sleep"),
        ("agent_jobs.rendering.answers", "from agent_jobs.request.body import find_mismatch"),
        ("agent_jobs.rendering.answers", "from agent_jobs.request import json_schema_of"),
        ("agent_jobs.request.body", "import anyio"),
        ("agent_jobs.store.records", "from agent_jobs.upstream.error_mapping import map_error"),
        ("agent_jobs.upstream.client", "import agent_jobs.jobs.job"),
        ("agent_jobs.upstream.client", "def later():\n    from agent_jobs import job"),
        ("agent_jobs.upstream.client", "from .. import store"),
        ("agent_jobs.upstream.client", "from ..store.sqlite import SQLiteStore"),
        ("agent_jobs.mcp_server.server", "from agent_jobs.store.base import Store"),
        ("agent_jobs.engine.engine", "from agent_jobs.app import open_app"),
        ("agent_jobs.engine.engine", "import httpx2"),
        ("agent_jobs.settings.values", "from agent_jobs.settings.settings import Settings"),
        ("agent_jobs.notices.sender", "from agent_jobs.settings.settings import Settings"),
        ("agent_jobs.engine.engine", "def cost():\n    from genai_prices import calc_price"),
        ("agent_jobs.emulator.wire", "from agent_jobs.errors import AgentJobsError"),
        ("agent_jobs.emulator.wire", "from ..job import Status"),
        ("agent_jobs.emulator.wire", "import agent_jobs"),
        ("agent_jobs.app", "from agent_jobs.emulator import run_emulator"),
        ("agent_jobs.__main__", "import click"),
    ],
)
def test_forbidden_import_is_reported(module: str, source: str):
    assert len(find_forbidden(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("agent_jobs.store.records", "from agent_jobs.store.rows import job_of\nfrom .worker_lock import WorkerLock"),
        ("agent_jobs.emulator.wire", "from .run import Run\nimport starlette.requests"),
        ("agent_jobs.mcp_server.server", "from agent_jobs import __version__, render\nimport json"),
        ("agent_jobs.rendering.answers", "from agent_jobs.request.json_schema import find_mismatch"),
        ("agent_jobs.cli.demo", "from agent_jobs.emulator import run_emulator"),
        ("agent_jobs.engine.step", "from agent_jobs.upstream.client import ResponsesClient\nimport anyio, time"),
    ],
)
def test_allowed_import_is_not_reported(module: str, source: str):
    assert find_forbidden(source, module) == []
