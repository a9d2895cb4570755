"""The haproxy of this machine, if it has one."""

import shutil

#: What a skipped test says, and the end of the test run.
NO_HAPROXY = "there is no haproxy: install Debian's haproxy"
#: If this variable is set, a machine without haproxy fails the tests.
NEEDS_HAPROXY = "TESTS_NEED_HAPROXY"


def find_haproxy() -> str | None:
    """Return the path of haproxy: on PATH, or where Debian keeps it, which is only on root's PATH."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
