"""`agent-jobs install` and `uninstall`: write this server into a host's configuration, or remove it."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from agent_jobs.cli.checks.entry_trial import try_entry
from agent_jobs.cli.checks.host_checks import REMOVE_LOCAL, format_switches, read_entry_settings
from agent_jobs.cli.choice import NamedChoice
from agent_jobs.cli.found_hosts import describe_hosts, print_hosts
from agent_jobs.cli.install_remote import check_remote_arguments, install_remote
from agent_jobs.cli.install_report import (
    name_file_in_errors,
    print_fragment,
    print_json,
    print_report,
    write_host_file,
)
from agent_jobs.cli.program import Program, make_permanent, plan_printed_program, plan_program, remove_program
from agent_jobs.cli.session import convert_errors
from agent_jobs.cli.wording import describe_error
from agent_jobs.errors import ConfigError, RequestError
from agent_jobs.install.command import find_launch
from agent_jobs.install.config_file import FileSnapshot, Scope, locate_file, read_snapshot
from agent_jobs.install.detect import find_hosts
from agent_jobs.install.entry import (
    enable_entry,
    install_entry,
    read_entry,
    refuse_comments,
    remove_entry,
    render_fragment,
)
from agent_jobs.install.hosts import HOSTS, KEY, KEY_FILE, SERVER, Entry, Host, find_disabling_values
from agent_jobs.install.local_scope import find_local_scope
from agent_jobs.install.machine import Launch, Machine
from agent_jobs.install.remote import TOKEN_VARIABLE
from agent_jobs.settings.config_folder import find_config_file, find_key_folder, is_default_place
from agent_jobs.settings.settings import CONFIG, DEFAULT_BASE_URL
from agent_jobs.settings.stored_keys import format_set_command

#: Hosts whose files `install` writes.
WRITTEN = tuple(name for name, host in HOSTS.items() if host.user is not None)
#: Hosts whose entries `install --print` prints; this program does not write their files.
PRINTED = tuple(name for name, host in HOSTS.items() if host.user is None)
#: A NAME=VALUE argument. The groups are the name and the value.
VARIABLE = re.compile("([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


scope_option = click.option(
    "--scope", type=NamedChoice(["user", "project"]), default="user", show_default=True,
    help="Your own file, or the file of the project in this folder.",
)  # fmt: skip
dry_run_option = click.option("--dry-run", is_flag=True, help="Show the changes with secrets masked; change nothing.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


@click.command("install")
@click.argument("host", type=NamedChoice(WRITTEN + PRINTED), metavar="[HOST]", required=False)
@click.option("--print", "print_only", is_flag=True, help="Only print the entry; works for every host.")
@dry_run_option
@click.option("--uvx", is_flag=True, help="Let the host start uvx, which is slower, and install nothing.")
@click.option("--approve", is_flag=True, help="Let the model call agent_start without asking you; for codex.")
@click.option(
    "--no-check", "checks", is_flag=True, flag_value=False, default=True, help="Do not test the written command."
)
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable for the server; repeatable.")
@click.option("--url", metavar="URL", help="Reach a team server at this address instead; for claude-code and codex.")
@click.option(
    "--token-env",
    metavar="NAME",
    default=TOKEN_VARIABLE,
    show_default=True,
    help="The variable with its token; none to sign in.",
)
@scope_option
@json_option
def install_command(
    host: str | None, print_only: bool, env: tuple[str, ...], url: str | None, token_env: str, **options: Any
) -> None:
    """Add this server to a host's configuration. Without HOST, list the hosts on this machine.

    Writes the files of claude-desktop, claude-code, cursor, vscode, codex, opencode, kilo, qwen and copilot-cli. With
    --print also supports gemini, antigravity, windsurf, devin, zed, goose, cline, roo, continue and lm-studio.

    The entry starts a permanent program by its absolute path. That is the program that runs this command. If it is
    temporary, uv tool install or pipx install installs this version.

    The file is backed up beside itself, and everything else in it stays unchanged. A key that agent-jobs key set stored
    is found by the server itself. Otherwise the key is left to the host's own way of keeping secrets.

    With --url the host reaches a team server (agent-jobs serve --http) at that address. The entry names the variable
    that holds the token, and never the token.

    Exit status: 0 done, or nothing to do; 1 refused, and nothing was written; 2 wrong arguments.
    """
    variables = parse_variables(env)
    if url is not None:
        local_options = {"--env": env, "--uvx": options["uvx"], "--approve": options["approve"]}
        check_remote_arguments(host, url, token_env, local_options)
        install_remote(
            HOSTS[host or ""],
            find_machine(),
            url,
            token_env,
            scope=options["scope"],
            print_only=print_only,
            dry_run=options["dry_run"],
            as_json=options["as_json"],
        )
    elif host is None:
        list_hosts(find_machine(), as_json=options["as_json"])
    elif print_only:
        print_entry(
            HOSTS[host],
            find_machine(),
            variables,
            uvx=options["uvx"],
            approve=options["approve"],
            as_json=options["as_json"],
        )
    else:
        install(HOSTS[host], find_machine(), variables, **options)


@click.command("uninstall")
@click.argument("host", type=NamedChoice(WRITTEN), metavar="HOST")
@dry_run_option
@scope_option
@json_option
def uninstall_command(host: str, dry_run: bool, scope: Scope, as_json: bool) -> None:
    """Remove this server from a host's configuration.

    Supports the hosts whose files install writes. A program that install installed is removed, too, unless another
    host's entry starts it. Jobs, database and key stay.

    Exit status: 0 done, or nothing to do; 1 refused, and nothing was written; 2 wrong arguments.
    """
    uninstall(HOSTS[host], find_machine(), scope, dry_run=dry_run, as_json=as_json)


def list_hosts(machine: Machine, *, as_json: bool) -> None:
    """Print the hosts on this machine, and the command for each."""
    rows = describe_hosts(find_hosts(machine))
    if as_json:
        return print_json({"hosts": rows})
    return print_hosts(rows)


@convert_errors()
def install(host: Host, machine: Machine, environment: Mapping[str, str], *, as_json: bool, **options: Any) -> None:
    """Put our entry into the host's file; report what was done and what the user does next."""
    print_report(write_entry(host, machine, environment, **options), as_json=as_json)


def write_entry(
    host: Host,
    machine: Machine,
    environment: Mapping[str, str],
    *,
    scope: Scope = "user",
    uvx: bool = False,
    approve: bool = False,
    checks: bool = True,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Put our entry into the host's file; return the report of it.

    Raises:
        AgentJobsError: Nothing was written.
    """
    _check_arguments(host, environment, approve=approve)
    before = read_snapshot(locate_file(host, machine, scope))
    with name_file_in_errors(before):
        refuse_comments(host, before.text)
        old = read_entry(host, before.text)
    program = Program(find_launch(machine)) if uvx else plan_program(machine)
    environment = {**_name_settings_file(machine), **environment}
    has_stored_key = scope == "user" and _has_stored_key(host, old, environment, machine)

    def merge(launch: Launch) -> str:
        with name_file_in_errors(before):
            text = install_entry(host, before.text, launch, environment, approve=approve, has_stored_key=has_stored_key)
            return enable_entry(host, text)

    text = merge(program.launch)  # an error has to be raised before anything is installed
    notes: list[str] = []
    if program.installer is not None:
        if dry_run:
            notes = [f"{program.launch.command} would be installed ({program.installer.install_line})."]
        else:
            launch, notes = make_permanent(program, machine)
            text = merge(launch)
    notes += _describe_corrections(host, before, dry_run=dry_run)
    notes += _describe_local_scope(host, machine, "takes precedence over this one")
    entry = read_entry(host, text) or {}
    report = write_host_file(host, before, text, "installed", dry_run=dry_run, is_tidied=before.bom)
    if checks and report["action"] == "installed":
        report["warnings"] = try_entry(host, entry, machine)
    return _add_notes(report, notes) | {"next": _list_steps(host, entry, machine)}


def _name_settings_file(machine: Machine) -> dict[str, str]:
    """Return the variable that names the settings file, if the server would look for it in another place."""
    if is_default_place(machine.environ):
        return {}
    path = find_config_file(machine.environ)
    if any(map(os.path.exists, (path, find_key_folder(machine.environ)))):
        return {CONFIG: path}
    return {}


def _has_stored_key(host: Host, entry: Entry | None, environment: Mapping[str, str], machine: Machine) -> bool:
    """Return True if the server that the host starts finds a stored key for its endpoint."""
    variables = {**(entry or {}).get(host.env, {}), **environment}
    settings, _ = read_entry_settings(host, {host.env: variables}, machine)
    return settings.stored_key is not None


@convert_errors()
def uninstall(host: Host, machine: Machine, scope: Scope, *, dry_run: bool, as_json: bool) -> None:
    """Remove our entry from the host's file, and our program if `install` installed it; everything else stays."""
    before = read_snapshot(locate_file(host, machine, scope))
    with name_file_in_errors(before):
        text = remove_entry(host, before.text)
    notes = _describe_local_scope(host, machine, "is still there")
    report = write_host_file(host, before, text, "removed", dry_run=dry_run)
    if removed := read_entry(host, before.text):
        notes += remove_program(host.read_command(removed).command, before.path, machine, dry_run=dry_run)
    print_report(_add_notes(report, notes) | {"next": [f"Start {host.title} again."]}, as_json=as_json)


@convert_errors()
def print_entry(
    host: Host, machine: Machine, environment: Mapping[str, str], *, uvx: bool, approve: bool, as_json: bool
) -> None:
    """Print a file of the host that contains nothing but our entry."""
    _check_arguments(host, environment, approve=approve)
    program = Program(find_launch(machine)) if uvx else plan_printed_program(machine)
    environment = {**_name_settings_file(machine), **environment}
    has_stored_key = _has_stored_key(host, None, environment, machine)
    entry = render_fragment(host, program.launch, environment, approve=approve, has_stored_key=has_stored_key)
    advice: list[str] = []
    if program.installer is not None:
        advice = [f"To start faster, run {program.installer.install_line}, then this command again."]
    print_fragment(host, entry, advice, as_json=as_json)


def render_entry() -> str:
    """Return the entry for hosts that read `mcpServers`, as it works on this machine."""
    start = plan_printed_program(find_machine()).launch
    entry = {"command": start.command, "args": list(start.args), "env": {KEY: "sk-..."}}
    return json.dumps({"mcpServers": {SERVER: entry}}, indent=2)


def parse_variables(pairs: tuple[str, ...]) -> dict[str, str]:
    """Return NAME=VALUE arguments as a mapping."""
    variables: dict[str, str] = {}
    for pair in pairs:
        found = VARIABLE.fullmatch(pair)
        if found is None:
            raise click.UsageError("--env needs NAME=VALUE.")
        variables[found[1]] = found[2]
    return variables


def find_machine() -> Machine:
    """Return the machine, user and folder of this process."""
    return Machine(sys.platform, Path.home(), os.environ, Path.cwd())


def _check_arguments(host: Host, environment: Mapping[str, str], *, approve: bool) -> None:
    """Refuse arguments that the host cannot use.

    Raises:
        RequestError: It has no approvals, or needs no key in its file.
    """
    if approve and host.approval is None:
        raise RequestError(
            f"{host.title} keeps no approvals in this file. Leave --approve out, and approve in the host."
        )
    is_reference = host.is_reference(environment.get(KEY, ""))
    if KEY in environment and host.hands_key_over and not is_reference:
        raise RequestError(
            f"{host.title} passes the key on by itself, so its file must not contain it. Leave {KEY} out, or name a "
            f"file that holds the key with --env {KEY_FILE}=PATH."
        )


def _describe_corrections(host: Host, before: FileSnapshot, *, dry_run: bool) -> Iterator[str]:
    """Yield sentences about changes besides our entry's command and variables."""
    switched, removed = "is on now", "was removed"
    if dry_run:
        switched, removed = "would be switched on", "would be removed"
    if off := format_switches(find_disabling_values(read_entry(host, before.text))):
        yield f"The entry was switched off ({off}) and {switched}."
    if before.bom:
        yield f"The byte order mark at the beginning of the file {removed}: many hosts cannot read a file with one."


def _describe_local_scope(host: Host, machine: Machine, relation: str) -> list[str]:
    """Return sentences about the host's entries for this folder alone.

    Args:
        host: The host.
        machine: Where its files are.
        relation: The relation of an entry of local scope to the changed entry.
    """
    with suppress(ConfigError):
        local = find_local_scope(host, read_snapshot(locate_file(host, machine, "user")).text, machine)
        if local.entry is not None:
            entry = f"{host.title}'s entry of local scope for {local.project}"
            return [f"{entry} {relation}. Remove it with: {REMOVE_LOCAL}"]
        if local.is_switched_off:
            return [f"{host.title} has {SERVER} switched off in this folder. Switch it on there with /mcp."]
    return []


def _add_notes(report: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    if notes:
        return report | {"notes": notes}
    return report


def _list_steps(host: Host, entry: Entry, machine: Machine) -> list[str]:
    """Return what the user has to do after an installation."""
    return [
        *_find_entry_mistakes(host, entry, machine),
        *_advise_on_key(host, entry, machine),
        host.after,
        *_advise_on_approval(host, entry),
        *host.advice,
    ]


def _find_entry_mistakes(host: Host, entry: Entry, machine: Machine) -> list[str]:
    """Return a sentence for each variable of the entry that is invalid or has no effect."""
    settings, refused = read_entry_settings(host, entry, machine)
    return [*refused, *map(describe_error, settings.warnings)]


def _advise_on_key(host: Host, entry: Entry, machine: Machine) -> list[str]:
    """Return what the user has to do about the key, if anything."""
    settings, refused = read_entry_settings(host, entry, machine)
    command = format_set_command(settings.base_url, DEFAULT_BASE_URL)
    if settings.stored_key is not None or host.asks or KEY_FILE in "\n".join(refused):
        return []
    if _passes_key_on(host, entry) and machine.environ.get(KEY):
        return [
            f"{host.title} passes on {KEY} from the environment in which it is started. An app that is started from "
            f"the desktop does not see the variables of your shell. For such an app run {command}"
        ]
    if settings.has_key:
        return []
    return [f"Store your API key once, for all hosts: {command}"]


def _passes_key_on(host: Host, entry: Entry) -> bool:
    """Return True if the host passes on the key from its own environment."""
    if host.secret:
        return entry.get(host.env, {}).get(KEY) == host.secret
    return KEY in entry.get(host.forwards, ())


def _advise_on_approval(host: Host, entry: Entry) -> list[str]:
    """Return the host's behaviour at agent_start if its file has no approval for it."""
    tools = entry.get("tools", {})
    if host.approval is None or "agent_start" in tools or "default_tools_approval_mode" in entry:
        return []
    return [
        f"{host.title} asks you before each agent_start, and refuses it if it cannot ask (codex exec). To approve it "
        "once, run this again with --approve. The tools that only read are approved."
    ]
