"""`agent-jobs key`: store the API key of an endpoint, show which one is used, delete it and check it."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from agent_jobs.cli.checks.finding import Finding, print_finding
from agent_jobs.cli.choice import NamedGroup
from agent_jobs.cli.display.sections import format_pairs
from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.json_answer import print_answer, print_json_answer
from agent_jobs.cli.key_origin import (
    KeyInUse,
    add_key_end,
    describe_stored_key,
    find_key_in_use,
    find_other_key,
    mask_secret,
    name_key,
)
from agent_jobs.cli.session import Exit, Session, convert_errors, json_option, run_in_session
from agent_jobs.cli.wording import describe_error
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.errors import ConfigError
from agent_jobs.settings.config_folder import find_key_folder
from agent_jobs.settings.configuration import load_usable_settings
from agent_jobs.settings.key_mistakes import find_key_mistake, repair_key
from agent_jobs.settings.missing_key import missing_key_error
from agent_jobs.settings.secret_values import KEY_FILE_CHARS
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.settings_file import may_lack_address
from agent_jobs.settings.stored_keys import (
    StoredKey,
    delete_key,
    find_stored_key,
    list_endpoints,
    name_endpoint,
    store_key,
)
from agent_jobs.settings.values import SecretStr, check_header

NO_ARGUMENT = (
    "The key does not go onto the command line, because the shell keeps that. Run `agent-jobs key set`, and paste it."
)
#: A text this long may be a key, so that an error does not repeat it.
MIN_KEY_CHARS = 16


class KeyCommands(NamedGroup):
    """The commands about the key. A key in place of their names is not repeated."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name."""
        if args[0].startswith("sk-") or len(args[0]) >= MIN_KEY_CHARS:
            ctx.fail(NO_ARGUMENT)
        return super().resolve_command(ctx, args)


def _refuse_arguments(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> None:
    """Refuse a key on the command line without repeating it, as click's own refusal would."""
    if values:
        context.fail(NO_ARGUMENT)


no_arguments = click.argument("rest", nargs=-1, metavar="", expose_value=False, callback=_refuse_arguments)
endpoint_option = click.option(
    "--endpoint", metavar="URL", help="The endpoint of the key, if it is not the one of your settings."
)


@click.group("key", cls=KeyCommands)
def key_command() -> None:
    """Store the API key, show which one is used, check or delete it.

    A stored key is used by hosts and by this terminal, for its endpoint only. The environment takes precedence, then
    --env-file, then the stored key.
    """


@key_command.command("set")
@no_arguments
@endpoint_option
@click.option(
    "--stdin", "from_stdin", is_flag=True, help="Read the key from stdin, as from a pipe without this option."
)
@click.option("--file", "in_file", is_flag=True, help="Store it in a file that only you can read, not in the keyring.")
@json_option
def set_command(endpoint: str | None, from_stdin: bool, in_file: bool, as_json: bool) -> None:
    """Store the API key. It is asked for without being shown.

    It goes into the system's keyring, if there is one and agent-jobs[keyring] is installed. Otherwise it goes into a
    file that only you can read.

    Exit status: 0 stored, 1 refused, and nothing was stored; 2 wrong arguments.
    """
    with convert_errors():
        base_url = find_base_url(endpoint)
        key, left_out = check_key(read_key(name_endpoint(base_url), from_stdin=from_stdin))
        has_other = _has_other_key(base_url, key)
        stored = store_key_safely(base_url, key, use_keyring=not in_file)
        sentences = [
            *(f"Left out {words}." for words in left_out),
            f"Stored for {stored.endpoint}: {name_key(SecretStr(key))}, in {describe_stored_key(stored)}.",
            _describe_precedence(base_url, key),
        ]
    if has_other:
        sentences.append("Running hosts use the earlier key until the provider refuses it, then the new one.")
    answer = {"endpoint": stored.endpoint, "key": mask_secret(SecretStr(key)), **_list_place(stored)}
    print_answer(answer, sentences, as_json=as_json)


@key_command.command("show")
@no_arguments
@endpoint_option
@json_option
def show_command(endpoint: str | None, as_json: bool) -> None:
    """Show the last four characters of the key, and where it comes from.

    Exit status: 0 there is a key, 1 there is none.
    """
    with convert_errors():
        base_url = find_base_url(endpoint)
        used = find_key_in_use(base_url)
        other = find_other_key(base_url, used)
    others = [name for name in list_endpoints(find_key_folder(os.environ)) if name != name_endpoint(base_url)]
    if as_json:
        answer: dict[str, Any] = {"endpoint": name_endpoint(base_url), "key": None, "from": None}
        if used is not None:
            answer |= {"key": mask_secret(used.secret), "from": used.origin, "where": used.where}
        if other is not None:
            answer["not_used"] = {"key": mask_secret(other.secret), "from": other.origin, "where": other.where}
        print_json_answer(answer | {"other_endpoints": others})
    else:
        _write_keys(base_url, used, other, others)
    if used is None:
        raise SystemExit(Exit.REFUSED)


@key_command.command("delete")
@no_arguments
@endpoint_option
@json_option
def delete_command(endpoint: str | None, as_json: bool) -> None:
    """Delete the stored key of the endpoint. A key in the environment stays.

    Exit status: 0 deleted, or there was none; 1 refused.
    """
    with convert_errors(), raise_on_ctrl_c():
        base_url = find_base_url(endpoint)
        name = name_endpoint(base_url)
        path = delete_key(find_key_folder(os.environ), base_url)
    answer = {"endpoint": name, "deleted": path is not None}
    print_answer(answer, _describe_deletion(name, path, base_url), as_json=as_json)


@key_command.command("check")
@no_arguments
@json_option
def check_command(as_json: bool) -> None:
    """Ask the provider whether it accepts the key. This costs nothing.

    Exit status: 0 it accepts the key, 1 it does not, or there is none.
    """
    from agent_jobs.cli.checks.endpoint_check import check_endpoint

    settings, refused = load_usable_settings(os.environ)
    with convert_errors():
        if refused:
            raise ConfigError(refused[0])
        if not settings.has_key:
            raise missing_key_error(settings)

    async def check(session: Session) -> list[Finding]:
        return await check_endpoint(session.engine, settings)

    findings = run_in_session(check, role="acts", settings=settings)
    answer = {"findings": [finding.as_json() for finding in findings]}
    print_answer(answer, findings, as_json=as_json, write=print_finding)
    if any(each.state == "problem" for each in findings):
        raise SystemExit(Exit.REFUSED)


def find_base_url(endpoint: str | None) -> str:
    """Return the address of the endpoint that the user named, or of that in the settings.

    Raises:
        ConfigError: It is no address.
    """
    if endpoint is not None:
        url = endpoint
        if "://" not in url:
            url = f"https://{endpoint}"
        return Settings.from_env({"OPENAI_BASE_URL": url}, {"OPENAI_BASE_URL": "--endpoint"}).base_url
    settings, refused = load_usable_settings(os.environ)
    if may_lack_address(refused):
        raise ConfigError(f"{refused[0]} Or name the endpoint with --endpoint.")
    return settings.base_url


def read_key(endpoint: str, *, from_stdin: bool = False) -> str:
    """Return what the user pastes at the terminal, or what comes from stdin.

    Raises:
        ConfigError: Nothing came.
    """
    if from_stdin or not sys.stdin.isatty():
        text = _read_stdin()
    else:
        with raise_on_ctrl_c():  # the terminal must show what is typed again
            text = click.prompt(
                f"API key for {endpoint} (not shown)", hide_input=True, default="", show_default=False, err=True
            )
    if not text.strip():
        raise ConfigError("No key was given. Paste it at the question, or pipe it in: agent-jobs key set < FILE")
    return text


def check_key(text: str) -> tuple[str, list[str]]:
    """Return the key without what was copied along with it, and what was left out.

    Raises:
        ConfigError: It is no key. The sentence does not show it.
    """
    key, left_out = repair_key(text)
    mistake = find_key_mistake(key)
    if mistake is None:
        if len(key) >= KEY_FILE_CHARS:
            raise ConfigError("This is longer than any key. Copy the key again, alone.")
        return check_header("The key", key), left_out
    if mistake.is_unset:
        raise ConfigError("This is a reference to a variable, not its value. Copy the key itself.")
    if mistake.what == "is a path":
        raise ConfigError("This is a path. Read the file with: agent-jobs key set < FILE")
    raise ConfigError(f"This {mistake.what}. Copy the key again, alone.")


def store_key_safely(base_url: str, key: str, *, use_keyring: bool = True) -> StoredKey:
    """Store a key. Ctrl-C leaves the earlier one, or the new one, and nothing half-written."""
    with raise_on_ctrl_c():
        return store_key(find_key_folder(os.environ), base_url, key, use_keyring=use_keyring)


def _read_stdin() -> str:
    if sys.stdin.isatty():
        click.echo("Paste the key, then press Enter and Ctrl-D.", err=True)
    try:
        return sys.stdin.buffer.read(KEY_FILE_CHARS + 1).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("The input on stdin is not text. Pipe only the key.") from None


def _has_other_key(base_url: str, key: str) -> bool:
    """Return True if another key, or one in the keyring, is stored for the endpoint."""
    with suppress(ConfigError):  # a broken one is replaced
        stored = find_stored_key(find_key_folder(os.environ), base_url)
        return stored is not None and stored.secret != SecretStr(key)
    return False


def _describe_precedence(base_url: str, key: str) -> str:
    """Return who uses the key that was stored: this terminal may have another one."""
    used = find_key_in_use(base_url)
    if used is None or used.is_stored or used.secret.get_secret_value() == key:
        return "Hosts and this terminal use it from the next call on."
    return (
        f"{add_key_end('This terminal uses another key', used.secret)}: {used.where} takes precedence. Hosts use the "
        "stored key unless their own environment has one."
    )


def _describe_deletion(name: str, path: Path | None, base_url: str) -> Iterator[str]:
    """Yield what became of the stored key, and that this terminal uses another one."""
    if path is None:
        yield f"No key is stored for {name}."
    else:
        yield f"Deleted the stored key for {name}."
    used = find_key_in_use(base_url)
    if used is not None:
        yield f"This terminal still uses {name_key(used.secret)}, from {used.where}."


def _write_keys(base_url: str, used: KeyInUse | None, other: KeyInUse | None, others: list[str]) -> None:
    if used is None:
        print_sentences(describe_error(missing_key_error(Settings(base_url=base_url))), err=True)
    rows = list(_list_key_rows(base_url, used, other, others))
    if len(rows) > 1:  # more than the endpoint
        click.echo("\n".join(format_pairs(rows, indent="")))


def _list_key_rows(
    base_url: str, used: KeyInUse | None, other: KeyInUse | None, others: list[str]
) -> Iterator[tuple[str, str]]:
    yield "endpoint", name_endpoint(base_url)
    if used is not None:
        yield "key", name_key(used.secret)
        yield "from", used.where
    if other is not None:
        yield "not used", f"{name_key(other.secret)}, from {other.where}"
    if others:
        yield "also for", ", ".join(others)


def _list_place(stored: StoredKey) -> dict[str, str]:
    if stored.is_in_keyring:
        return {"from": "keyring"}
    return {"from": "file", "where": str(stored.path)}
