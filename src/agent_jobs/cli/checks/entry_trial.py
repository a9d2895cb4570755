"""Start the command of an entry once, as its host will start it, to find missing settings."""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

from agent_jobs.cli.checks.host_checks import build_environment, pick_variables, read_entry_settings
from agent_jobs.cli.checks.selftest import SelfTestError, start_server
from agent_jobs.install.command import build_desktop_path
from agent_jobs.install.hosts import KEY, Entry, Host
from agent_jobs.install.machine import Machine
from agent_jobs.settings.configuration import load_usable_settings

#: Variables that hosts pass on from their own environment, besides those that the entry names.
PASSED_ON = ("HOME", "LOGNAME", "SHELL", "TERM", "USER")
PASSED_ON_WINDOWS = (
    "APPDATA", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATHEXT", "PROCESSOR_ARCHITECTURE", "SYSTEMDRIVE",
    "SYSTEMROOT", "TEMP", "USERNAME", "USERPROFILE",
)  # fmt: skip
PROVIDER_LIMIT_S = 30.0  # a slow provider answers a list of models within seconds


def try_entry(host: Host, entry: Entry, machine: Machine) -> list[str]:
    """Start the entry's command, list and call tools, and ask the provider; return what went wrong."""
    start = host.read_command(entry)
    command, environment = [start.command, *start.args], build_host_environment(host, entry, machine)
    try:
        start_server(command, environment, tool="agent_list")
    except SelfTestError as error:
        return [f"The command of the entry was started once, as {host.title} will start it: {error}."]
    return list(_find_provider_mistakes(host, entry, machine, command, environment))


def build_host_environment(host: Host, entry: Entry, machine: Machine) -> dict[str, str]:
    """Return the environment in which the host starts the server, as far as it is known here."""
    names = PASSED_ON_WINDOWS if machine.platform == "win32" else PASSED_ON
    environment = pick_variables(machine.environ, names)
    environment |= build_environment(host, entry, machine.environ)
    environment["PATH"] = build_desktop_path(machine) if host.desktop else machine.environ.get("PATH", "")
    return environment


def _find_provider_mistakes(
    host: Host, entry: Entry, machine: Machine, command: list[str], environment: Mapping[str, str]
) -> list[str]:
    """Ask the provider with the host's environment; return its objections."""
    theirs, _ = read_entry_settings(host, entry, machine)
    ours, _ = load_usable_settings(machine.environ)
    if not theirs.has_key:
        return _report_missing_key(host, entry)
    if theirs.base_url != ours.base_url:
        return []  # the user did not ask to contact another address; doctor names it
    answer = _run_doctor(command, environment)
    if answer is None:
        return []  # the server itself answered, so nothing is known of the provider
    return [f"In the environment that {host.title} gives it: {mistake}" for mistake in _list_mistakes(answer)]


def _run_doctor(command: list[str], environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the answer of `doctor --upstream` in that environment, None if there is none."""
    with tempfile.TemporaryDirectory(prefix="agent-jobs-trial-") as folder:
        try:
            done = subprocess.run(
                [*command, "doctor", "--json", "--upstream"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                env={**environment, "AGENT_JOBS_DATA_DIR": folder}, timeout=PROVIDER_LIMIT_S, check=False,
            )  # fmt: skip
            return json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            return None


def _list_mistakes(answer: Mapping[str, Any]) -> list[str]:
    """Return the error of a doctor's answer, or its warnings and problems."""
    if "error" in answer:
        return [answer["error"]["message"]]
    return [_describe_mistake(finding) for finding in answer["findings"] if finding["state"] != "ok"]


def _describe_mistake(finding: Mapping[str, str]) -> str:
    if "fix" in finding:
        return f"{finding['text']} ({finding['fix']})"
    return finding["text"]


def _report_missing_key(host: Host, entry: Entry) -> list[str]:
    """Return a sentence if the host passes on a variable that is not set here; other ways have their own sentence."""
    passed_on = {*entry.get(host.env, {}), *entry.get(host.forwards, ())}
    if host.asks or KEY not in passed_on:
        return []
    return [f"{KEY} is not set here. A {host.title} that is started like this gives the server no key."]
