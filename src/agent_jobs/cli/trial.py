"""One start of the command that was written, as its host will start it: what is missing there is seen at once."""

import json
import subprocess
import tempfile
from collections.abc import Mapping

from agent_jobs.cli.host_checks import environment_of, settings_of
from agent_jobs.cli.selftest import SelfTestError, start_server
from agent_jobs.install.command import desktop_path
from agent_jobs.install.hosts import KEY, Entry, Host, Machine

#: What hosts hand on of their own environment, besides what the entry names.
HANDED_ON = ("HOME", "LOGNAME", "SHELL", "TERM", "USER")
HANDED_ON_WINDOWS = (
    "APPDATA", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATHEXT", "PROCESSOR_ARCHITECTURE", "SYSTEMDRIVE",
    "SYSTEMROOT", "TEMP", "USERNAME", "USERPROFILE",
)  # fmt: skip
UPSTREAM_LIMIT_S = 30.0


def try_entry(host: Host, entry: Entry, machine: Machine) -> list[str]:
    """Start the entry's command once, list and call tools, and ask upstream; return what went wrong."""
    start = host.command_of(entry)
    command, environment = [start.command, *start.args], host_environment(host, entry, machine)
    try:
        start_server(command, environment, tool="agent_list")
    except SelfTestError as error:
        return [f"The command of the entry was started once, as {host.title} will start it: {error}."]
    return list(_upstream_mistakes(host, entry, machine, command, environment))


def host_environment(host: Host, entry: Entry, machine: Machine) -> dict[str, str]:
    """Return the environment in which the host starts the server, as far as can be known from here."""
    names = HANDED_ON_WINDOWS if machine.platform == "win32" else HANDED_ON
    around = {name: machine.environ[name] for name in names if name in machine.environ}
    path = desktop_path(machine) if host.desktop else machine.environ.get("PATH", "")
    return {**around, **environment_of(host, entry, machine.environ), "PATH": path}


def _upstream_mistakes(
    host: Host, entry: Entry, machine: Machine, command: list[str], environment: Mapping[str, str]
) -> list[str]:
    """Ask upstream with the host's environment; return what it says against it."""
    theirs, ours = (
        settings_of(host, entry, machine.environ)[0],
        settings_of(host, {host.env: dict(machine.environ)}, {})[0],
    )
    if theirs.api_key is None:
        return _missing_key(host, entry)
    if theirs.base_url != ours.base_url:
        return []  # another address than this terminal's is not asked unasked; doctor names it
    with tempfile.TemporaryDirectory(prefix="agent-jobs-trial-") as folder:
        try:
            done = subprocess.run(
                [*command, "doctor", "--json", "--upstream"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                env={**environment, "AGENT_JOBS_DATA_DIR": folder}, timeout=UPSTREAM_LIMIT_S, check=False,
            )  # fmt: skip
            answer = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            return []  # the server itself answered: nothing is known of upstream
    if "error" in answer:
        mistakes = [answer["error"]["message"]]
    else:
        wrong = [each for each in answer["findings"] if each["state"] != "ok"]
        mistakes = [each["text"] + (f" ({each['fix']})" if "fix" in each else "") for each in wrong]
    return [f"In the environment that {host.title} gives it: {mistake}" for mistake in mistakes]


def _missing_key(host: Host, entry: Entry) -> list[str]:
    """Return a sentence if the host hands on a variable that is not set here; other ways have a sentence already."""
    handed_on = {**entry.get(host.env, {}), **dict.fromkeys(entry.get(host.forwards or "", ()))}
    if host.asks or KEY not in handed_on:
        return []
    return [f"{KEY} is not set here: a {host.title} that is started like this gives the server no key."]
