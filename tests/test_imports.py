"""The arrows of docs/design: which room may import which. A new module needs a row of its own here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent_jobs

HOUSE = Path(agent_jobs.__file__).parent

PURE = {"api_key", "errors", "jobs", "rendering", "request", "text", "variable_names"}

#: The packages and modules, from the lowest to the highest; `""` is the package itself, where only the version stands.
ALLOWED: dict[str, set[str]] = {
    "": set(),
    "jobs": set(),
    "errors": set(),
    "clock": set(),
    "ctrl_c": set(),
    "file_lock": set(),
    "jsonrpc": {"text_file"},
    "api_key": set(),
    "text": set(),
    "text_file": set(),
    "variable_names": {"text"},
    "settings": {"api_key", "errors", "jobs", "text", "text_file", "variable_names"},
    "strict_schema": set(),
    "request": {"errors", "jobs", "strict_schema", "text", "text_file"},
    "rendering": {"errors", "jobs", "request"},
    "attachments": {"errors", "text", "text_file"},
    "upstream": {"errors"},
    "store": {"errors", "file_lock", "jobs"},
    "toolbox": {"", "errors", "jsonrpc", "strict_schema", "text", "text_file"},
    "install": {"", "errors", "text_file"},
    "pricing": {"errors", "jobs", "text_file"},
    "engine": {
        "attachments",
        "clock",
        "errors",
        "jobs",
        "pricing",
        "rendering",
        "request",
        "store",
        "toolbox",
        "upstream",
    },
    "app": {
        "attachments",
        "clock",
        "ctrl_c",
        "engine",
        "errors",
        "jobs",
        "pricing",
        "request",
        "settings",
        "store",
        "toolbox",
        "upstream",
    },
    "mcp_server": {
        "",
        "api_key",
        "app",
        "clock",
        "engine",
        "errors",
        "jobs",
        "jsonrpc",
        "rendering",
        "request",
        "settings",
        "text",
        "text_file",
        "variable_names",
    },
    "cli": {
        "",
        "api_key",
        "app",
        "clock",
        "ctrl_c",
        "emulator",
        "engine",
        "errors",
        "file_lock",
        "install",
        "jobs",
        "mcp_server",
        "rendering",
        "request",
        "settings",
        "text",
        "text_file",
        "variable_names",
    },
    "__main__": {"cli", "ctrl_c", "mcp_server"},
    "emulator": set(),
}

#: Who may touch the outside world; what stands in no row is nobody's, and no pure room waits or does I/O.
OUTSIDE: dict[str, set[str]] = {
    "anyio": {"app", "cli", "clock", "emulator", "engine", "mcp_server", "store", "toolbox", "upstream"},
    "httpx2": {"toolbox", "upstream"},
    "aiosqlite": {"store"},
    "sqlite3": {"store"},
    "mcp": {"cli", "mcp_server", "toolbox"},
    "mcp_types": {"cli", "jsonrpc", "mcp_server", "toolbox"},
    "pydantic": {"mcp_server", "toolbox"},
    "jsonschema": {"request"},
    "referencing": {"request"},
    "platformdirs": {"settings"},
    "genai_prices": {"pricing"},
    "pathspec": {"attachments"},
    "click": {"cli"},
    "rich": {"cli"},
    "tomlkit": {"install"},
    "starlette": {"emulator"},
    "uvicorn": {"cli", "emulator"},
}
#: What may see both the API and the store.
ENGINE = {"app", "engine"}
UNTOUCHED_BY_THE_PURE = {"asyncio", "os", "time", "random", "secrets", "socket", "logging", "threading", "subprocess"}


def room_of(module: str) -> str | None:
    """The room of a dotted name, None for what is not ours."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "agent_jobs" else None


def imported(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """The dotted names that a module imports anywhere in it, relative ones resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def forbidden(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What this module imports against the tables."""
    here = room_of(module)
    assert here is not None
    wrong: list[str] = []
    for name in imported(source, module, is_package=is_package):
        room, outside = room_of(name), name.partition(".")[0]
        if room is not None and room not in ALLOWED:
            room = ""  # `from agent_jobs import __version__`
        if room is None:
            fine = here in OUTSIDE.get(outside, {here}) and not (here in PURE and outside in UNTOUCHED_BY_THE_PURE)
        else:
            fine = room == here or room in ALLOWED[here]
        if not fine:
            wrong.append(f"{module} imports {name}")
    return wrong


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(HOUSE.rglob("*.py")):
        parts = path.relative_to(HOUSE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@pytest.mark.parametrize(("module", "path"), [pytest.param(*found, id=found[0]) for found in modules()])
def test_a_module_imports_only_from_below(module: str, path: Path):
    assert room_of(module) in ALLOWED, "a new room needs a row in ALLOWED"
    assert forbidden(path.read_text(), module, is_package=path.name == "__init__.py") == []


def test_only_faces_see_the_app_and_only_the_command_line_the_emulator():
    assert {room for room, below in ALLOWED.items() if "app" in below} == {"mcp_server", "cli"}
    assert {room for room, below in ALLOWED.items() if "emulator" in below} == {"cli"}
    seeing_both = {room for room, below in ALLOWED.items() if {"upstream", "store"} <= below}
    assert seeing_both == ENGINE


def test_the_table_has_no_circle():
    below = {room: set(rooms) for room, rooms in ALLOWED.items()}
    while below:
        bottom = {room for room, rooms in below.items() if not rooms & below.keys()}
        assert bottom, f"a circle among {sorted(below)}"
        below = {room: rooms for room, rooms in below.items() if room not in bottom}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("agent_jobs.jobs.job", "from agent_jobs.store.base import Store"),
        ("agent_jobs.jobs.job", "import time"),
        ("agent_jobs.rendering.answers", "from asyncio import sleep"),
        ("agent_jobs.request.body", "import anyio"),
        ("agent_jobs.store.records", "from agent_jobs.upstream.client import refusal"),
        ("agent_jobs.upstream.client", "import agent_jobs.jobs.job"),
        ("agent_jobs.upstream.client", "def later():\n    from agent_jobs import job"),
        ("agent_jobs.upstream.client", "from .. import store"),
        ("agent_jobs.upstream.client", "from ..store.sqlite import SQLiteStore"),
        ("agent_jobs.mcp_server.server", "from agent_jobs.store.base import Store"),
        ("agent_jobs.engine.engine", "from agent_jobs.app import open_app"),
        ("agent_jobs.engine.engine", "import httpx2"),
        ("agent_jobs.engine.engine", "def cost():\n    from genai_prices import calc_price"),
        ("agent_jobs.emulator.wire", "from agent_jobs.errors import AgentJobsError"),
        ("agent_jobs.emulator.wire", "from ..job import Status"),
        ("agent_jobs.emulator.wire", "import agent_jobs"),
        ("agent_jobs.app", "from agent_jobs.emulator import running"),
        ("agent_jobs.__main__", "import click"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str):
    assert len(forbidden(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("agent_jobs.store.records", "from agent_jobs.store.worker_lock import Holder\nfrom .holder import Holder"),
        ("agent_jobs.emulator.wire", "from .run import Run\nimport starlette.requests"),
        ("agent_jobs.mcp_server.server", "from agent_jobs import __version__, render\nimport json"),
        ("agent_jobs.cli.demo", "from agent_jobs.emulator import running"),
        ("agent_jobs.engine.step", "from agent_jobs.upstream.client import ResponsesClient\nimport anyio, time"),
    ],
)
def test_an_allowed_import_is_not(module: str, source: str):
    assert forbidden(source, module) == []
