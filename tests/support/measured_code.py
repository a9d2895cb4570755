"""Keeps the code that SlipCover has put its probes into, beside the bytecode of our modules.

Putting the probes in takes ten times as long as compiling: 5 s of CPU for all modules, in each test process and in each
fork server. What is kept has placeholders for the probes, which are objects of a process.
"""

import ast
import marshal
import os
import sys
import threading
from contextlib import suppress
from importlib import import_module
from importlib.util import cache_from_source
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

#: What a function that was given probes calls, and the beginning of what stands for a probe.
SIGNAL = "signal of a probe"

_lock = threading.Lock()


class Placeholders:
    """Stands in for the module of the probes."""

    signal = SIGNAL

    @staticmethod
    def new(measuring: Any, path: str, label: Any, threshold: int) -> tuple[str, Any]:
        return SIGNAL, label


def keep_code() -> None:
    """Have SlipCover use what was kept. From Python 3.12 on it puts nothing into the code."""
    if sys.version_info < (3, 12):
        import_module("slipcover.importer").SlipcoverLoader.exec_module = _run_module


def _run_module(loader: Any, module: ModuleType) -> None:
    exec(place_probes(_read_code(loader.sci, loader.origin), loader.sci), module.__dict__)


def _read_code(measuring: Any, path: Path) -> CodeType:
    """Return the code of a module with placeholders, which is made and kept if the module is new or has changed."""
    kept = Path(cache_from_source(path, optimization="slipcover"))
    status = path.stat()
    stamp = str(path), status.st_mtime_ns, status.st_size, import_module("slipcover").__version__
    with suppress(OSError, EOFError, ValueError, TypeError):
        kept_stamp, code = marshal.loads(kept.read_bytes())
        if kept_stamp == stamp:
            return code
    code = _put_placeholders(measuring, path)
    written = kept.with_suffix(f".{os.getpid()}")
    with suppress(OSError):  # a folder that is read only
        kept.parent.mkdir(exist_ok=True)
        written.write_bytes(marshal.dumps((stamp, code)))
        written.replace(kept)
    return code


def _put_placeholders(measuring: Any, path: Path) -> CodeType:
    slipcover: Any = import_module("slipcover.slipcover")
    branch = import_module("slipcover.branch")
    code = compile(branch.preinstrument(ast.parse(path.read_bytes())), str(path), "exec")
    with _lock:
        probe, slipcover.probe = slipcover.probe, Placeholders
        try:
            return measuring.instrument(code)
        finally:
            slipcover.probe = probe


def place_probes(code: CodeType, measuring: Any) -> CodeType:
    """Return the code with a probe of this process for each placeholder."""
    probe = import_module("slipcover.probe")

    def place(constant: Any) -> Any:
        match constant:
            case CodeType():
                return place_probes(constant, measuring)
            case str() if constant == SIGNAL:
                return probe.signal
            case (str() as signal, label) if signal == SIGNAL:
                return probe.new(measuring, code.co_filename, label, measuring.d_miss_threshold)
            case _:
                return constant

    return code.replace(co_consts=tuple(map(place, code.co_consts)))
