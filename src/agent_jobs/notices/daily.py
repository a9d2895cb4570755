"""Let one process of a machine send the notice of a day."""

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

PREFIX, SUFFIX = "budget-", ".notice"


def claim_day(folder: Path, now: float) -> bool:
    """Return True for the first caller of a day (UTC), over all processes; a file in this folder remembers it."""
    name = f"{PREFIX}{datetime.fromtimestamp(now, UTC):%Y-%m-%d}{SUFFIX}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(folder / name, os.O_CREAT | os.O_EXCL, 0o600))
    except OSError:  # it exists, or the disk is full
        return False
    for old in folder.glob(f"{PREFIX}*{SUFFIX}"):
        if old.name != name:
            with suppress(OSError):
                old.unlink()
    return True
