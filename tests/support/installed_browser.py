"""The browser of this machine, if it has one."""

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: What a skipped test says, and the end of the test run.
NO_BROWSER = "there is no browser: install Debian's chromium, or run `playwright install chromium`"
#: If this variable is set, a machine without a browser fails the tests.
NEEDS_BROWSER = "TESTS_NEED_BROWSER"


def find_browser() -> str | None:
    """The path of a Chromium on PATH."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)
