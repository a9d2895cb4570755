"""Write the entry of a team server, which a host reaches by its address, for `agent-jobs install --url`."""

import os
import re
import shlex
from collections.abc import Mapping
from urllib.parse import urlsplit

import click

from agent_jobs.cli.install_report import (
    mask_secrets,
    name_file_in_errors,
    print_fragment,
    print_report,
    write_host_file,
)
from agent_jobs.cli.session import convert_errors
from agent_jobs.install.config_file import Scope, locate_file, read_snapshot
from agent_jobs.install.entry import read_entry, refuse_comments, replace_entry
from agent_jobs.install.hosts import Entry, Host
from agent_jobs.install.machine import Machine
from agent_jobs.install.remote import NO_TOKEN, REMOTE_ENTRIES, complete_url, create_remote_entry
from agent_jobs.web_address import LOOPBACK_HOSTS, split_web_address

_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def check_remote_arguments(host: str | None, url: str, variable: str, local_options: Mapping[str, object]) -> None:
    """Refuse arguments that do not fit an entry by address.

    Raises:
        click.UsageError: They do not.
    """
    if host not in REMOTE_ENTRIES:
        raise click.UsageError(f"--url is for {' and '.join(REMOTE_ENTRIES)}. In other hosts, add the address by hand.")
    given = next((name for name, value in local_options.items() if value), None)
    if given is not None:
        raise click.UsageError(f"--url does not go with {given}: the host starts no program.")
    parts = split_web_address(url)
    if parts is None or "@" in parts.netloc:
        raise click.UsageError("--url accepts a web address, such as https://jobs.example.com.")
    if not _VARIABLE.fullmatch(variable):
        raise click.UsageError("--token-env accepts the name of a variable, never the token itself.")


@convert_errors()
def install_remote(
    host: Host,
    machine: Machine,
    url: str,
    variable: str,
    *,
    scope: Scope,
    print_only: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put the entry into the host's file, or print it."""
    entry = create_remote_entry(host, complete_url(url), variable)
    if print_only:
        return print_fragment(host, replace_entry(host, "", entry), as_json=as_json)
    before = read_snapshot(locate_file(host, machine, scope))
    with name_file_in_errors(before):
        refuse_comments(host, before.text)
        text = replace_entry(host, before.text, entry)
        replaced = _describe_replaced_entry(host, read_entry(host, before.text), entry)
    report = write_host_file(host, before, text, "installed", dry_run=dry_run)
    if replaced:
        verb = "Would replace" if dry_run else "Replaced"
        report["notes"] = [f"{verb} the entry that {replaced}."]
    return print_report(report | {"next": _list_remote_steps(host, url, variable)}, as_json=as_json)


def _describe_replaced_entry(host: Host, old: Entry | None, new: Entry) -> str:
    """Return what the old entry did if the new one does something else; empty if there is none."""
    if old is None or old.get("url") == new["url"]:
        return ""
    if "url" in old:
        return f"connected to {mask_secrets(str(old['url']))}"
    start = host.read_command(old)
    return f"started {mask_secrets(shlex.join([start.command, *start.args]))}"


def _list_remote_steps(host: Host, url: str, variable: str) -> list[str]:
    """Return what the user has to do after that."""
    steps: list[str] = []
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK_HOSTS:
        steps.append("The token goes over the network in the clear. Use an address with https:// instead.")
    if variable == NO_TOKEN:
        steps.append(f"Sign in when {host.title} asks you to. The server must accept OAuth.")
    elif not os.environ.get(variable):
        steps.append(f"Set {variable} to your token in the environment in which {host.title} starts.")
    return [*steps, host.after]
