"""The browser of this machine, if it has one."""

import os
import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: What a skipped test says, and the end of the test run.
NO_BROWSER = "there is no browser: install Debian's chromium, or run `playwright install chromium`"
#: If this variable is set, a machine without a browser fails the tests.
NEEDS_BROWSER = "TESTS_NEED_BROWSER"


def find_browser() -> str | None:
    """Return the path of a Chromium: one on PATH, or Playwright's own."""
    on_path = [path for name in NAMES if (path := shutil.which(name))]
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or "~/.cache/ms-playwright").expanduser()
    own = [str(path) for path in sorted(folder.glob("chromium-*/chrome-linux*/chrome"))]
    return next(iter([*on_path, *own]), None)
