"""Write the file of a host, and print what `install` and `uninstall` did, without secrets."""

import difflib
import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.errors import ConfigError
from agent_jobs.install.config_file import FileSnapshot, write_replacement
from agent_jobs.install.hosts import SERVER, Host

#: A quoted value whose name suggests a secret; references and paths are no secrets.
SECRET_VALUE = re.compile(
    r"""(?P<name>["']?(?<![\w.-])[\w.-]*(?:key|token|secret|passw|auth|cookie|credential|webhook)[\w.-]*["']?\s*[:=]\s*)
        (?P<quote>["'])(?!\$|~|/|\{env:)
        (?!(?:bearer|basic|token)\ \$(?:\{(?:env:)?\w+(?::-)?\}|\w+)(?P=quote))
        (?P<value>(?:\\.|(?!(?P=quote)).)+)(?P=quote)""",
    re.I | re.X,
)
#: Keys by their beginning, the text after `Bearer` or `token=`, and name and password of an address.
SECRET_FORM = re.compile(
    r"""\b(?:sk|pk|gh[pousr]|github_pat|glpat|xox[abp])[-_][\w-]{8,}
      | (?:(?<=bearer\ )|(?<=key=)|(?<=token=)|(?<=secret=)|(?<=password=))(?!\$)[^\s"'&]+
      | (?<=://)[^\s"'/@]+(?=@)""",
    re.I | re.X,
)
MASK = "********"
#: Characters of a line of a diff; longer lines are minified data.
DIFF_LINE_CHARS = 400
#: The actions after which the user has something to do.
_ACTIONS_WITH_STEPS = ("installed", "removed")
#: The sentence for each action on a file.
_ACTIONS = {
    "unchanged": "Nothing to do in {file}.",
    "installed": f"{SERVER} was installed: {{file}}",
    "removed": f"{SERVER} was removed: {{file}}",
    "would be installed": f"{SERVER} would be installed: {{file}}",
    "would be removed": f"{SERVER} would be removed: {{file}}",
}


def mask_secrets(text: str) -> str:
    """Return the text without anything that looks like a secret."""
    text = SECRET_VALUE.sub(rf"\g<name>\g<quote>{MASK}\g<quote>", text)
    return SECRET_FORM.sub(MASK, text)


def render_diff(before: FileSnapshot, text: str) -> str:
    """Return what changes in a host's file, with secrets masked."""
    old, new = mask_secrets(before.text).splitlines(), mask_secrets(text).splitlines()
    if text == before.text:
        return "(only the byte order mark)"
    if old == new:
        return "(only a secret changes)"
    lines = difflib.unified_diff(old, new, str(before.path), str(before.path), n=1, lineterm="")
    return "\n".join(map(_shorten_output_line, lines))


def _shorten_output_line(line: str) -> str:
    if len(line) <= DIFF_LINE_CHARS:
        return line
    return f"{line[0]}(a line of {len(line):,} characters)"


@contextmanager
def name_file_in_errors(before: FileSnapshot) -> Generator[None]:
    """Begin the errors that are raised inside with the file."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{before.path}: {error}") from None


def write_host_file(
    host: Host, before: FileSnapshot, text: str, action: str, *, dry_run: bool, is_tidied: bool = False
) -> dict[str, Any]:  # fmt: skip
    """Write the host's file unless nothing changes; return the report of it."""
    report: dict[str, Any] = {"host": host.name, "file": str(before.path)}
    if text == before.text and not is_tidied:
        return report | {"action": "unchanged"}
    if dry_run:
        return report | {"action": f"would be {action}", "diff": render_diff(before, text)}
    with raise_on_ctrl_c():  # a temporary file must be removed
        backup = write_replacement(before, text)
    report["action"] = action
    if backup:
        report["backup"] = str(backup)
    return report


def print_report(report: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what was done and what the user has to do next."""
    if as_json:
        return print_json(report)
    for line in _list_lines(report):
        print_sentences(line)
    if "diff" in report:
        click.echo(report["diff"])
    return None


def print_json(report: Mapping[str, Any]) -> None:
    """Print a report as one line of JSON."""
    click.echo(json.dumps(report, ensure_ascii=False))


def print_fragment(host: Host, text: str, advice: Sequence[str] = (), *, as_json: bool) -> None:
    """Print a file of the host that contains nothing but our entry; on stderr its place, and advice."""
    if as_json:
        return print_json({"host": host.name, "where": host.where, "format": host.format, "entry": text})
    click.echo("\n".join([f"{host.title}: {host.where}", *advice]), err=True)
    return click.echo(text, nl=False)


def _list_lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield _ACTIONS[report["action"]].format(file=report["file"])
    yield from report.get("notes", ())
    if report["action"] not in _ACTIONS_WITH_STEPS:
        return
    if "backup" in report:
        yield f"Backup: {report['backup']}"
    yield from (f"Warning: {warning}" for warning in report.get("warnings", ()))
    yield from (f"Next: {step}" for step in report["next"])
