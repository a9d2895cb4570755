"""Make the peer's own environment once, and run the peer in it."""

import functools
import hashlib
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
CACHE = HERE.parents[1] / ".cache"
READY_SECONDS = 30
STOP_SECONDS = 10


@dataclass(frozen=True)
class Peer:
    base_url: str
    """The base URL for an OpenAI client: the peer serves /responses without /v1."""
    counts: Callable[[], dict[str, dict[str, int]]]
    """Requests so far: "requests" by method and kind, "creates" by X-Client-Request-Id ("" without one)."""
    release: Callable[[], None]
    """Let the texts end whose last word was held back."""


@functools.cache
def interpreter(requirements: Path = REQUIREMENTS) -> Path:
    home = CACHE / f"peer-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]}"
    python = python_of(home)
    if not python.exists():
        build(home, requirements)
    return python


def python_of(home: Path) -> Path:
    return home / "bin" / "python"


def build(home: Path, requirements: Path) -> None:
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{home.name}.", dir=CACHE) as scratch:
        made = Path(scratch) / "environment"
        for command in recipe(made, requirements):
            run(command)
        try:
            made.rename(home)
        except OSError:
            # Another process was first; its environment is equal to this one.
            if not python_of(home).exists():
                raise


def recipe(home: Path, requirements: Path) -> list[list[str]]:
    uv, python = os.environ.get("UV") or shutil.which("uv"), str(python_of(home))
    if uv is None:
        return [
            [sys.executable, "-m", "venv", str(home)],
            [python, "-m", "pip", "install", "--quiet", "-r", str(requirements)],
        ]
    return [
        [uv, "venv", "--python", sys.executable, str(home)],
        # Compiled now, since the first start would otherwise need more than READY_SECONDS.
        [uv, "pip", "install", "--python", python, "--compile-bytecode", "-r", str(requirements)],
    ]


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"no environment for the peer: {' '.join(command)}\n{done.stderr}")


@contextmanager
def upstream(*, seconds: float = 20, tokens: int = 300, held: bool = False) -> Generator[Peer]:
    """Run the peer; a prompt can override both numbers, as in "[seconds=3 tokens=50]".

    With `held` no text ends before it is released.
    """
    program = [str(interpreter()), str(HERE / "upstream.py"), "--port", "0"]
    command = [*program, "--seconds", str(seconds), "--tokens", str(tokens)]
    if held:
        command.append("--held")
    # The caller's environment is left out, since it can name proxies, cloud credentials and exporters.
    with tempfile.TemporaryDirectory() as home, Path(home, "stderr").open("wb") as stderr:
        scrubbed = {"HOME": home, "PATH": os.defpath, "OTEL_SDK_DISABLED": "true"}
        with subprocess.Popen(
            command, cwd=home, env=scrubbed, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process:
            try:
                base_url = ready(process, Path(home, "stderr"))
                yield Peer(base_url, functools.partial(counts, base_url), functools.partial(release, base_url))
            finally:
                stop(process)


def ready(process: subprocess.Popen[str], stderr: Path) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
    line = process.stdout.readline() if readable else ""
    if not line.startswith("READY "):
        raise RuntimeError(f"the peer did not get ready, it said {line!r}\n{stderr.read_text()}")
    return line.removeprefix("READY ").strip()


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def counts(base_url: str) -> dict[str, dict[str, int]]:
    return httpx2.get(f"{base_url}/_counts", trust_env=False).raise_for_status().json()


def release(base_url: str) -> None:
    httpx2.get(f"{base_url}/_release", trust_env=False).raise_for_status()
