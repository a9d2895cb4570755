"""Reads the log of the emulated upstream, and the size of an answer."""

from typing import Any

from agent_jobs.emulator.server import RunningServer
from agent_jobs.text import compact_json


def size(answer: dict[str, Any]) -> int:
    """Return how many bytes an answer takes as compact JSON."""
    return len(compact_json(answer).encode())


def runs(upstream: RunningServer) -> list[dict[str, Any]]:
    """Return the responses that upstream really created."""
    return [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]


def list_statuses(upstream: RunningServer) -> list[str]:
    """Return the status of each response."""
    return [run["status"] for run in runs(upstream)]


def creates(upstream: RunningServer) -> int:
    """Return how many creating POSTs upstream has received."""
    return upstream.emulator.counters()["creates"]
