"""`agent-jobs init`: store the key, install into the hosts on this machine, and run a first job."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from agent_jobs.cli.checks.endpoint_check import REFUSED_KEY_FIX, check_endpoint
from agent_jobs.cli.checks.finding import Finding
from agent_jobs.cli.choice import NamedChoice
from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.install import WRITTEN, find_machine, write_entry
from agent_jobs.cli.key import check_key, find_base_url, read_key, store_key_safely
from agent_jobs.cli.key_origin import (
    KeyInUse,
    add_key_end,
    describe_stored_key,
    find_key_in_use,
    is_same_endpoint,
    name_key,
)
from agent_jobs.cli.session import Exit, Refusal, Session, convert_errors, run_in_session
from agent_jobs.cli.user_input import ask_for_line, ask_to_agree
from agent_jobs.cli.wording import describe_error
from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.errors import AgentJobsError, ConfigError
from agent_jobs.install.detect import find_hosts
from agent_jobs.install.hosts import HOSTS
from agent_jobs.settings.config_folder import find_config_file
from agent_jobs.settings.configuration import load_usable_settings
from agent_jobs.settings.missing_key import missing_key_error
from agent_jobs.settings.settings import DEFAULT_BASE_URL, Settings
from agent_jobs.settings.settings_file import read_settings_file
from agent_jobs.settings.stored_keys import name_endpoint
from agent_jobs.settings.values import SecretStr

BASE_URL = "OPENAI_BASE_URL"
#: How often a mistyped or refused key is asked for again.
KEY_RETRIES = 2
#: The state of a host by the action on its file.
_INSTALLED = {"installed": "installed", "unchanged": "was installed already"}
FIRST_PROMPT = "In two sentences: why do long jobs run better in the background?"
SAY_THIS = (
    "Start a job that compares how three databases recover from a crash, with sources, and tell me when it is done."
)


@dataclass(frozen=True)
class Plan:
    """What the options ask for."""

    base_url: str
    is_asking: bool  #: the user answers the questions, not --yes
    from_stdin: bool
    hosts: tuple[str, ...]
    has_job: bool
    checks: bool  #: each written command is started once


@click.command("init")
@click.option("--yes", is_flag=True, help="Ask nothing: use all hosts on this machine, and run the first job.")
@click.option(
    "--host", "hosts", multiple=True, type=NamedChoice([*WRITTEN, "none"]), help="Only this host; repeatable."
)
@click.option("--job/--no-job", "has_job", default=True, help="Run a first job, which is the default, or run none.")
@click.option("--endpoint", metavar="URL", help="The endpoint of the key, if it is not the one of your settings.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the key from stdin. Needs --yes.")
@click.option("--no-check", is_flag=True, help="Do not test the commands that are written for the hosts.")
def init_command(
    yes: bool, hosts: tuple[str, ...], has_job: bool, endpoint: str | None, from_stdin: bool, no_check: bool
) -> None:
    """Set up the key, the hosts and a first job.

    Asks for the API key, asks the provider whether it accepts it, and stores it. Installs into the hosts that you
    choose, and runs a first job. In a pipe and without --yes, only says what it would do.

    Exit status: 0 done, 1 at least one step was refused, 2 wrong arguments.
    """
    if from_stdin and not yes:
        raise click.UsageError("--stdin needs --yes: stdin cannot bring the key and the answers.")
    with convert_errors():
        plan = Plan(find_base_url(endpoint), not yes, from_stdin, hosts, has_job, checks=not no_check)
    if plan.is_asking and not sys.stdin.isatty():
        return _describe_plan(plan)
    with convert_errors(), raise_on_ctrl_c():
        _set_up_key(plan)
        _set_up_address(plan)
        chosen = _choose_hosts(plan)
        steps, has_failed = _install_hosts(chosen, checks=plan.checks)
    has_failed |= _run_first_job(plan)
    _describe_next_steps(steps)
    if has_failed:
        raise SystemExit(Exit.REFUSED)


def _describe_plan(plan: Plan) -> None:
    """Say what would happen with --yes."""
    endpoint = name_endpoint(plan.base_url)
    with convert_errors():
        used = find_key_in_use(plan.base_url)
    print_sentences("Nothing is changed without --yes, because this is not a terminal. With it, init would:")
    if used is None:
        print_sentences(f"- stop, because no API key is set for {endpoint}; --stdin reads one")
    else:
        print_sentences(f"- ask {endpoint} whether it accepts {add_key_end('the key', used.secret)}, from {used.where}")
        if not used.is_stored:
            print_sentences("- store that key for the hosts")
    if not _is_address_known(plan.base_url):
        print_sentences(f"- write base_url = {plan.base_url} to {find_config_file(os.environ)}")
    names = plan.hosts or tuple(_list_found())
    print_sentences(f"- install into {_join_titles(names)}")
    if plan.has_job:
        print_sentences(f"- run a first job at {endpoint}, which costs about a cent at most; --no-job runs none")


def _set_up_key(plan: Plan) -> None:
    """Have a checked key stored for the endpoint.

    Raises:
        ConfigError: There is none, or the provider refuses it. Nothing is stored.
    """
    if plan.from_stdin:
        return _ask_until_accepted(plan)
    used = find_key_in_use(plan.base_url)
    if used is not None and _use_known_key(plan, used):
        return None
    if not plan.is_asking:
        raise missing_key_error(Settings(base_url=plan.base_url))
    return _ask_until_accepted(plan)


def _use_known_key(plan: Plan, used: KeyInUse) -> bool:
    """Return True if the provider accepts the key of the settings, which is then stored for the hosts.

    Raises:
        ConfigError: It does not, and the user cannot be asked for another.
    """
    print_sentences(f"Key: {name_key(used.secret)}, from {used.where}.")
    try:
        _try_key(plan, used.secret)
    except ConfigError as error:
        if not plan.is_asking:
            raise
        print_sentences(describe_error(error), err=True)
        return False
    if not used.is_stored and _ask_or_agree(plan, "Store it for the hosts, too?"):
        _store_checked_key(plan, used.secret)
    return True


def _ask_until_accepted(plan: Plan) -> None:
    """Ask for a key until the provider accepts it, and store it.

    Raises:
        ConfigError: The last one is refused, or cannot be asked for.
    """
    retries = 0
    if plan.is_asking:
        retries = KEY_RETRIES
    for _ in range(retries):
        try:
            secret = _ask_for_key(plan)
        except ConfigError as error:
            print_sentences(f"{describe_error(error)} Try again.", err=True)
        else:
            return _store_checked_key(plan, secret)
    return _store_checked_key(plan, _ask_for_key(plan))


def _ask_for_key(plan: Plan) -> SecretStr:
    """Return the key that the user gives.

    Raises:
        ConfigError: It cannot be used.
    """
    key, left_out = check_key(read_key(name_endpoint(plan.base_url), from_stdin=plan.from_stdin))
    for words in left_out:
        print_sentences(f"Left out {words}.")
    secret = SecretStr(key)
    _try_key(plan, secret)
    return secret


def _try_key(plan: Plan, secret: SecretStr) -> None:
    """Ask the provider about the key.

    Raises:
        ConfigError: It cannot be used.
    """
    settings, _ = load_usable_settings(os.environ)
    settings = replace(settings, api_key=secret, stored_key=None, base_url=plan.base_url, log_level="error")
    print_sentences(f"Asking {name_endpoint(plan.base_url)} whether it accepts the key ...")

    async def check(session: Session) -> list[Finding]:
        return await check_endpoint(session.engine, settings)

    try:
        findings = run_in_session(check, role="acts", settings=settings)
    except Refusal as refusal:
        raise ConfigError(describe_error(refusal.error)) from None
    for finding in findings:
        if finding.what == "upstream" and finding.state == "problem":
            raise ConfigError(_format_finding(finding))
        print_sentences(_format_finding(finding))


def _format_finding(finding: Finding) -> str:
    text = f"{finding.text.rstrip('.')}."
    if finding.fix not in ("", REFUSED_KEY_FIX):
        return f"{text} To fix it, {finding.fix}."
    return text


def _store_checked_key(plan: Plan, secret: SecretStr) -> None:
    stored = store_key_safely(plan.base_url, secret.get_secret_value())
    print_sentences(f"Stored for {stored.endpoint}: {name_key(secret)}, in {describe_stored_key(stored)}.")


def _set_up_address(plan: Plan) -> None:
    """Have hosts use the same endpoint as this command."""
    os.environ[BASE_URL] = plan.base_url
    if _is_address_known(plan.base_url):
        return
    from agent_jobs.cli.config_edit import write_setting

    if _ask_or_agree(plan, f"Have all hosts and this terminal use {plan.base_url}?"):
        path = write_setting("base_url", plan.base_url)
        print_sentences(f"Wrote base_url = {plan.base_url} to {path}.")


def _is_address_known(base_url: str) -> bool:
    """Return True if a host without variables sends its jobs to this endpoint."""
    file = read_settings_file(find_config_file(os.environ))
    return is_same_endpoint(file.variables.get(BASE_URL, DEFAULT_BASE_URL), base_url)


def _choose_hosts(plan: Plan) -> Sequence[str]:
    """Return the names of the hosts into which to install."""
    if plan.hosts:
        return [name for name in plan.hosts if name != "none"]
    found = list(_list_found())
    click.echo("")
    if not found:
        print_sentences("No host was found on this machine. `agent-jobs install` lists all.")
        return []
    print_sentences(f"Hosts on this machine: {_join_titles(found)}.")
    if not plan.is_asking:
        return found
    return _ask_for_hosts(found)


def _ask_for_hosts(found: Sequence[str]) -> Sequence[str]:
    """Return the hosts that the user chooses."""
    question, default = f"Install into which? all, none, or names of {', '.join(found)}", "all"
    if len(found) == 1:
        question, default = f"Install into {_join_titles(found)}?", "Y/n"
    choices: dict[str, Sequence[str]] = dict.fromkeys(("all", "y", "yes", "y/n"), found)
    choices |= dict.fromkeys(("none", "n", "no"), ())
    while True:
        answer = ask_for_line(question, default).replace(",", " ").lower().split()
        names = choices.get(" ".join(answer), answer)
        unknown = [name for name in names if name not in WRITTEN]
        if not unknown:
            return names
        print_sentences(f"{', '.join(unknown)} is not a host whose file agent-jobs writes.", err=True)


def _install_hosts(names: Iterable[str], *, checks: bool) -> tuple[dict[str, list[str]], bool]:
    """Install into each host; return what the user does next in each, and True if one of them refused."""
    steps: dict[str, list[str]] = {}
    has_failed = False
    for name in dict.fromkeys(names):
        title = HOSTS[name].title
        try:
            report = write_entry(HOSTS[name], find_machine(), {}, checks=checks)
        except AgentJobsError as error:
            has_failed = True
            print_sentences(f"{title}: not installed. {describe_error(error)}", err=True)
            continue
        steps[title] = report["next"]
        _print_installation(title, report)
    return steps, has_failed


def _print_installation(title: str, report: dict[str, Any]) -> None:
    print_sentences(f"{title}: {_INSTALLED[report['action']]}, in {report['file']}.")
    for warning in report.get("warnings", ()):
        print_sentences(f"Warning: {warning}", err=True)


def _run_first_job(plan: Plan) -> bool:
    """Run a first job if the user wants one; return True if it failed."""
    if not plan.has_job:
        return False
    click.echo("")
    if not _ask_or_agree(plan, "Run a first job? It costs about a cent at most."):
        return False
    from agent_jobs.cli.main import cli

    options: list[str] = []
    if is_same_endpoint(plan.base_url, DEFAULT_BASE_URL):
        options = ["--preset", "quick"]  # other servers may not know its options
    command = ["run", *options, "--option", "max_output_tokens=1000", FIRST_PROMPT]
    print_sentences(f"agent-jobs {' '.join(command[:-1])} '{FIRST_PROMPT}'")
    try:
        cli.main(command, prog_name="agent-jobs", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return True
    except SystemExit as end:
        return end.code not in (None, 0, Exit.INCOMPLETE)
    return False


def _describe_next_steps(steps: dict[str, list[str]]) -> None:
    """Say what the user does in each host, and what to say to the assistant."""
    click.echo("")
    for title, each in steps.items():
        for step in each:
            print_sentences(_name_host(title, step))
    if steps:
        print_sentences(f"Then say to your assistant: {SAY_THIS}")
    else:
        print_sentences(f"Try it here: agent-jobs run '{FIRST_PROMPT}'")


def _name_host(title: str, step: str) -> str:
    """Return a step that names its host."""
    if title in step:
        return step
    return f"{title}: {step}"


def _ask_or_agree(plan: Plan, question: str) -> bool:
    """Return the user's answer; without a terminal --yes has answered."""
    return not plan.is_asking or ask_to_agree(question)


def _list_found() -> Iterator[str]:
    return (found.host.name for found in find_hosts(find_machine()) if found.path is not None)


def _join_titles(names: Iterable[str]) -> str:
    return ", ".join(HOSTS[name].title for name in names if name in HOSTS) or "no host"
