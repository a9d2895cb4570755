"""Emulate OpenAI's Responses API: it runs scripts instead of models, with faults on demand."""

from .app import Emulator
from .faults import Fault
from .server import RunningServer, run_emulator, serve

__all__ = ["Emulator", "Fault", "RunningServer", "run_emulator", "serve"]
