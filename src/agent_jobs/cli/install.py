"""`agent-jobs install` and `uninstall`: our entry in a host's file, and what the person has to do then."""

import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from agent_jobs.cli.host_checks import REMOVE_LOCAL, settings_of, written
from agent_jobs.cli.program import Program, make_permanent, planned_program, printed_program, remove_program
from agent_jobs.cli.session import refusals
from agent_jobs.cli.trial import try_entry
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.errors import ConfigError, RequestError
from agent_jobs.install.command import launch as uvx_launch
from agent_jobs.install.config_file import FileSnapshot, Scope, locate, read, replace
from agent_jobs.install.entry import enable_entry, entry_in, fragment, install_entry, refuse_comments, remove_entry
from agent_jobs.install.hosts import (
    KEY,
    KEY_FILE,
    KEY_PATH,
    SERVER,
    Entry,
    Host,
    Launch,
    Machine,
    find_disabling_values,
)
from agent_jobs.install.local_scope import local_scope

SECRET_VALUE = re.compile(
    r"""(?P<name>["']?(?<![\w.-])[\w.-]*(?:key|token|secret|passw|auth|cookie|credential|webhook)[\w.-]*["']?\s*[:=]\s*)
        (?P<quote>["'])(?!\$|~|/|\{env:)(?P<value>(?:\\.|(?!(?P=quote)).)+)(?P=quote)""",
    re.I | re.X,
)
#: Keys by their beginning, what follows `Bearer` or `token=`, and name and password of an address.
SECRET_FORM = re.compile(
    r"""\b(?:sk|pk|gh[pousr]|github_pat|glpat|xox[abp])[-_][\w-]{8,}
      | (?:(?<=bearer\ )|(?<=key=)|(?<=token=)|(?<=secret=)|(?<=password=))(?!\$)[^\s"'&]+
      | (?<=://)[^\s"'/@]+(?=@)""",
    re.I | re.X,
)
MASK = "********"
T = TypeVar("T")
SHOWN_CHARS = 400


@refusals()
def install(
    host: Host,
    machine: Machine,
    environment: Mapping[str, str],
    *,
    scope: Scope,
    uvx: bool,
    approve: bool,
    checks: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put our entry into the host's file; say what was done and what comes next."""
    _check(host, environment, approve=approve)
    before = read(locate(host, machine, scope))
    _told_of(before, lambda: refuse_comments(host, before.text))
    program = Program(uvx_launch(machine)) if uvx else planned_program(machine)

    def change(launch: Launch) -> str:
        return enable_entry(host, install_entry(host, before.text, launch, environment, approve=approve))

    def merged(launch: Launch) -> str:
        return _told_of(before, lambda: change(launch))

    text = merged(program.launch)  # refused before anything is installed
    done: list[str] = []
    if program.installer is not None and dry_run:
        done = [f"{program.launch.command} would be installed ({program.installer.shown_install})."]
    elif program.installer is not None:
        launch, done = make_permanent(program, machine)
        text = merged(launch)
    entry = entry_in(host, text) or {}
    notes = [*done, *_corrections(host, before, dry_run=dry_run), *_local_notes(host, machine, "goes before this one")]
    report = _write(host, before, text, "installed", dry_run=dry_run, is_tidied=before.bom)
    steps = [*_mistakes(host, entry, machine), *_key_advice(host, entry, machine), host.after]
    steps += [*_approval_advice(host, entry), *host.advice]
    if checks and report["action"] == "installed":
        report["warnings"] = try_entry(host, entry, machine)
    _tell(report | ({"notes": notes} if notes else {}) | {"next": steps}, as_json=as_json)


@refusals()
def uninstall(host: Host, machine: Machine, scope: Scope, *, dry_run: bool, as_json: bool) -> None:
    """Take our entry out of the host's file, and our program if it was for hosts only; all else stays."""
    before = read(locate(host, machine, scope))
    text = _told_of(before, lambda: remove_entry(host, before.text))
    notes = _local_notes(host, machine, "is still there")
    report = _write(host, before, text, "removed", dry_run=dry_run)
    if removed := entry_in(host, before.text):
        notes += remove_program(host.command_of(removed).command, before.path, machine, dry_run=dry_run)
    _tell(report | ({"notes": notes} if notes else {}) | {"next": [f"Start {host.title} again."]}, as_json=as_json)


@refusals()
def show(
    host: Host, machine: Machine, environment: Mapping[str, str], *, uvx: bool, approve: bool, as_json: bool
) -> None:
    """Print what the host's file would hold if it had nothing but our entry."""
    _check(host, environment, approve=approve)
    program = Program(uvx_launch(machine)) if uvx else printed_program(machine)
    entry = fragment(host, program.launch, environment, approve=approve)
    if as_json:
        _print_json({"host": host.name, "where": host.where, "format": host.format, "entry": entry})
        return
    click.echo(f"{host.title}: {host.where}", err=True)
    if program.installer is not None:
        click.echo(f"Quicker at each start: {program.installer.shown_install}, and then this again.", err=True)
    click.echo(entry, nl=False)


def variables(pairs: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE arguments as a mapping."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            raise click.UsageError("--env takes NAME=VALUE.")
        found[name] = value
    return found


def here() -> Machine:
    """The machine, person and folder of this process."""
    return Machine(sys.platform, Path.home(), os.environ, Path.cwd())


def masked(text: str) -> str:
    """The text without what looks like a secret, of whomever it is."""
    text = SECRET_VALUE.sub(rf"\g<name>\g<quote>{MASK}\g<quote>", text)
    return SECRET_FORM.sub(MASK, text)


def _check(host: Host, environment: Mapping[str, str], *, approve: bool) -> None:
    if approve and host.approval is None:
        raise RequestError(
            f"{host.title} keeps no approvals in this file: leave --approve out, and approve in the host."
        )
    reference = host.is_reference(environment.get(KEY, ""))
    if KEY in environment and host.hands_key_over and not reference:
        raise RequestError(
            f"{host.title} hands the key over by itself, so it is not written into its file: leave {KEY} out, or "
            f"name a file that holds it with --env {KEY_FILE}=PATH."
        )


def _told_of(before: FileSnapshot, change: Callable[[], T]) -> T:
    """What the change gives; its refusals begin with the file that they speak of."""
    try:
        return change()
    except ConfigError as error:
        raise ConfigError(f"{before.path}: {error}") from None


def _corrections(host: Host, before: FileSnapshot, *, dry_run: bool) -> Iterator[str]:
    """Sentences about what an installation changes besides our entry's command and variables."""
    if off := written(find_disabling_values(entry_in(host, before.text))):
        now = "would be switched on" if dry_run else "is on now"
        yield f"The entry was switched off ({off}) and {now}."
    if before.bom:
        now = "would be taken off" if dry_run else "was taken off"
        yield f"The byte order mark before the file's text {now}: many hosts read no file that has one."


def _local_notes(host: Host, machine: Machine, what_of_it: str) -> list[str]:
    """Return sentences about what the host keeps for this folder alone."""
    with suppress(ConfigError):
        local = local_scope(host, read(locate(host, machine, "user")).text, machine) if host.has_local_scope else None
        if local and local.entry is not None:
            remedy = f"{REMOVE_LOCAL} takes it out."
            return [f"{host.title}'s entry of local scope for {local.project} {what_of_it}: {remedy}"]
        if local and local.is_switched_off:
            return [f"{host.title} has {SERVER} switched off in this folder: switch it on there with /mcp."]
    return []


def _write(
    host: Host, before: FileSnapshot, text: str, done: str, *, dry_run: bool, is_tidied: bool = False
) -> dict[str, Any]:
    report: dict[str, Any] = {"host": host.name, "file": str(before.path)}
    if text == before.text and not is_tidied:
        return report | {"action": "unchanged"}
    if dry_run:
        return report | {"action": f"would be {done}", "diff": _diff(before, text)}
    with raise_on_ctrl_c():  # a file that was begun has to be removed
        backup = replace(before, text)
    return report | {"action": done} | ({"backup": str(backup)} if backup else {})


def _diff(before: FileSnapshot, text: str) -> str:
    old, new = (masked(each).splitlines() for each in (before.text, text))
    if text == before.text:
        return "(only the byte order mark)"
    if old == new:
        return "(only a secret changes)"
    lines = difflib.unified_diff(old, new, str(before.path), str(before.path), n=1, lineterm="")
    return "\n".join(
        line if len(line) <= SHOWN_CHARS else f"{line[0]}(a line of {len(line):,} characters)" for line in lines
    )


def _mistakes(host: Host, entry: Entry, machine: Machine) -> list[str]:
    """A sentence for each variable of the entry that the server would not take as it is meant."""
    if _key_to_come(host, entry, machine):
        written = {name: value for name, value in entry[host.env].items() if name != KEY_FILE}
        entry = {**entry, host.env: written}
    settings, refused = settings_of(host, entry, machine.environ)
    return [*refused, *settings.warnings]


def _key_to_come(host: Host, entry: Entry, machine: Machine) -> bool:
    """Whether the entry names our own place for the key and nothing is there yet: a step, not a mistake."""
    return entry.get(host.env, {}).get(KEY_FILE) == KEY_PATH and not (machine.home / KEY_PATH[2:]).is_file()


def _key_advice(host: Host, entry: Entry, machine: Machine) -> list[str]:
    """What is still to do about the key, if anything."""
    env = entry.get(host.env, {})
    if _key_to_come(host, entry, machine):
        return [f"Write your OpenAI key into {KEY_PATH}, alone on the first line, readable by you only."]
    forwarded = env.get(KEY) == host.secret if host.secret else KEY in entry.get(host.forwards or "", ())
    if forwarded and not host.asks:
        return [
            f"{host.title} hands on {KEY} of the environment it is started in. An app that is started from the desktop "
            f"does not see what your shell sets: then run this again with --env {KEY_FILE}=PATH."
        ]
    return []


def _approval_advice(host: Host, entry: Entry) -> list[str]:
    """Return what a host does with agent_start that has no approval for it."""
    tools = entry.get("tools", {})
    if host.approval is None or "agent_start" in tools or "default_tools_approval_mode" in entry:
        return []
    return [
        f"{host.title} asks you before each agent_start, and refuses it where nobody can be asked (codex exec): to "
        "approve it once for all, run this again with --approve. The tools that only read are approved."
    ]


def _tell(report: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_json(report)
        return
    action, file = report["action"], report["file"]
    if action == "unchanged":
        click.echo(f"Nothing to do in {file}.")
        for note in report.get("notes", ()):
            click.echo(note)
        return
    click.echo(f"{SERVER} {'was ' if ' ' not in action else ''}{action}: {file}")
    for note in report.get("notes", ()):
        click.echo(note)
    if "backup" in report:
        click.echo(f"As it was before: {report['backup']}")
    if "diff" in report:
        click.echo(report["diff"])
        return
    for warning in report.get("warnings", ()):
        click.echo(f"Warning: {warning}")
    for step in report["next"]:
        click.echo(f"Next: {step}")


def _print_json(report: Mapping[str, Any]) -> None:
    click.echo(json.dumps(report, ensure_ascii=False))
