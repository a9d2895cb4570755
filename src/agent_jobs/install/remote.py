"""The entries by which hosts reach a team server: its address, and the variable that holds the user's token. Pure."""

from collections.abc import Callable, Mapping
from copy import deepcopy

from agent_jobs.install.hosts import Entry, Host

MCP_PATH = "/mcp"
#: The variable that the entries name, and never its value.
TOKEN_VARIABLE = "AGENT_JOBS_TOKEN"
#: In place of a variable: the host signs its user in with OAuth.
NO_TOKEN = "none"


def _describe_claude_code(url: str, variable: str) -> Entry:
    if variable == NO_TOKEN:
        return {"type": "http", "url": url}
    # Without the default Claude Code refuses the whole file when the variable is not set.
    headers = {"Authorization": f"Bearer ${{{variable}:-}}"}
    return {"type": "http", "url": url, "headers": headers}


def _describe_codex(url: str, variable: str) -> Entry:
    if variable == NO_TOKEN:
        return {"url": url}
    return {"url": url, "bearer_token_env_var": variable}


#: The content of an entry, by host.
REMOTE_ENTRIES: Mapping[str, Callable[[str, str], Entry]] = {
    "claude-code": _describe_claude_code,
    "codex": _describe_codex,
}
#: Values for local entries alone: the host starts no program, and the key is the server's.
_LOCAL_VALUES = frozenset({"env_vars", "startup_timeout_sec"})


def create_remote_entry(host: Host, url: str, variable: str) -> Entry:
    """Return the entry of a host for a server at this address."""
    defaults = {name: deepcopy(value) for name, value in host.first.items() if name not in _LOCAL_VALUES}
    return {**REMOTE_ENTRIES[host.name](url, variable), **defaults}


def complete_url(url: str) -> str:
    """Return the address of MCP on the server with this address."""
    url = url.rstrip("/")
    if url.endswith(MCP_PATH):
        return url
    return f"{url}{MCP_PATH}"
