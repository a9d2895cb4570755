"""`agent-jobs notify`: show where notices of jobs go, and send one as a test."""

import logging
import os
import time
from collections.abc import Iterator, Mapping

import click

from agent_jobs.cli.checks.finding import Finding
from agent_jobs.cli.json_answer import print_answer
from agent_jobs.cli.session import Exit, create_refusal, json_option, read_settings
from agent_jobs.clock import Clock
from agent_jobs.errors import ConfigError
from agent_jobs.settings.notice_targets import EVENTS, NoticeTarget
from agent_jobs.settings.settings import Settings
from agent_jobs.wiring.notices import create_notice_sender

NO_TARGET = (
    "AGENT_JOBS_NOTIFY names no target. Set it to desktop, ntfy:TOPIC, slack:ADDRESS or webhook:ADDRESS; several are "
    "separated by commas."
)


@click.command("notify")
@click.option("--test", "is_test", is_flag=True, help="Send a test notice to each target.")
@json_option
def notify_command(is_test: bool, as_json: bool) -> None:
    """Show where notices of jobs are sent.

    The targets are those of AGENT_JOBS_NOTIFY. Their addresses are not shown, because they may be secrets.

    Exit status: 0 done; 1 there is no target, or a test notice was not sent.
    """
    settings = read_settings()
    if not settings.notify:
        raise create_refusal(ConfigError(NO_TARGET))
    failures: Mapping[NoticeTarget, str] = {}
    lines = _describe_targets(settings)
    if is_test:
        failures = _send_test(settings)
        lines = _describe_outcomes(settings, failures)
    rows = [_render_target(target, failures) for target in settings.notify]
    answer = {"targets": rows, "events": sorted(settings.notify_events)}
    print_answer(answer, lines, as_json=as_json, write=click.echo)
    raise SystemExit(Exit.REFUSED if any(failures.values()) else Exit.DONE)


def check_targets(settings: Settings) -> Iterator[Finding]:
    """Yield the finding of `doctor` about the targets, if there are any."""
    if not settings.notify:
        return
    from agent_jobs.notices.desktop import find_program

    text = ", ".join(_name_targets(settings))
    if NoticeTarget("desktop") in settings.notify and find_program(os.environ) is None:
        fix = "install the program that shows notices here, such as notify-send of libnotify"
        yield Finding("notices", "warning", f"{text}; no program shows notices on this desktop", fix)
    else:
        yield Finding("notices", "ok", f"{text}; test them with: agent-jobs notify --test")


def _send_test(settings: Settings) -> Mapping[NoticeTarget, str]:
    from agent_jobs.notices.notice import make_test_notice

    logging.getLogger("agent_jobs.notices").setLevel(logging.ERROR)  # the failures are printed
    return create_notice_sender(settings, Clock()).send("test", make_test_notice(time.time()))


def _describe_targets(settings: Settings) -> Iterator[str]:
    yield from _name_targets(settings)
    yield f"Events: {', '.join(_name_events(settings))}."
    yield "Test the targets with: agent-jobs notify --test"


def _describe_outcomes(settings: Settings, failures: Mapping[NoticeTarget, str]) -> Iterator[str]:
    """Yield a line for each target of a test; an empty failure means that the notice was sent."""
    for target, name in zip(settings.notify, _name_targets(settings), strict=True):
        outcome = "sent"
        if failures[target]:
            outcome = f"not sent, {failures[target]}"
        yield f"{name}: {outcome}"


def _name_targets(settings: Settings) -> list[str]:
    return [_name_target(settings, target) for target in settings.notify]


def _name_target(settings: Settings, target: NoticeTarget) -> str:
    """Return a target without its address, and whether its notices are signed."""
    if target.kind != "webhook":
        return str(target)
    if settings.notify_secret is None:
        return f"{target} (not signed)"
    return f"{target} (signed)"


def _name_events(settings: Settings) -> list[str]:
    names = {event: event for event in EVENTS}
    if settings.notify_min_s:
        names["finished"] = f"finished after at least {settings.notify_min_s:g} s"
    return [name for event, name in names.items() if event in settings.notify_events]


def _render_target(target: NoticeTarget, failures: Mapping[NoticeTarget, str]) -> dict[str, str | bool]:
    """Return a target for a program; after a test, whether its notice was sent, and why it was not."""
    if target not in failures:
        return {"target": str(target)}
    failure = failures[target]
    if failure:
        return {"target": str(target), "sent": False, "failure": failure}
    return {"target": str(target), "sent": True}
