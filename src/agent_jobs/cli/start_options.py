"""The arguments of `run` and `start`, and the request that they make."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent_jobs.cli.continue_last import continue_option, find_previous
from agent_jobs.cli.display.terminal import show_notice
from agent_jobs.cli.parameters import BatchName, EffortName, ModelName, PresetName
from agent_jobs.cli.session import CLIENT, JobId, json_option
from agent_jobs.cli.stdin import read_prompt
from agent_jobs.request.options import OPTIONS

if TYPE_CHECKING:  # imported when a job is started
    from agent_jobs.request.start_request import StartRequest

#: Names of options for the help.
OPTION_NAMES = ", ".join(sorted(OPTIONS))
#: Characters that make a path a pattern.
GLOB_CHARS = frozenset("*?[{")


def add_start_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments that describe a job."""
    for option in reversed(
        (
            click.argument("prompt"),
            click.option("--preset", type=PresetName(), help="deep_research, think, review, quick, or one of yours."),
            click.option("--model", type=ModelName(), help="Model to use instead of the preset's or AGENT_JOBS_MODEL."),
            click.option("--effort", type=EffortName(), help="Reasoning effort, from none or minimal to high or max."),
            click.option("--web-search/--no-web-search", default=None, help="Allow or forbid web search."),
            click.option("--file", "files", multiple=True, metavar="PATH", help="A file, folder or glob; repeatable."),
            click.option("--previous", metavar="ID", type=JobId(), help="Continue from this finished job."),
            continue_option,
            click.option("--batch", type=BatchName(), default="", help="Name of the batch to which the job belongs."),
            click.option(
                "--new", "--allow-duplicate", "new", is_flag=True, help="Start a job even if an identical one exists."
            ),
            click.option("--dry-run", is_flag=True, help="Show what would be sent and what it may cost; send nothing."),
            click.option("--high", is_flag=True, help="Send the job before others that wait for a slot."),
            click.option(
                "--option",
                "options",
                multiple=True,
                metavar="NAME=JSON",
                help=f"Another option, such as max_output_tokens=2000; repeatable. Names: {OPTION_NAMES}.",
            ),
            json_option,
        )
    ):
        command = option(command)
    return command


def read_request(arguments: dict[str, Any], *, dry_run: bool) -> "tuple[StartRequest, tuple[Path, ...]]":
    """Return the request of the command line, and the folders that it allows to read by naming files."""
    from agent_jobs.request.start_request import StartRequest

    if repeated := arguments.get("repeats"):
        show_notice("Sending...")
        return StartRequest(prompts=[arguments["prompt"]], client=CLIENT, repeats_job_id=repeated), ()
    files = list(map(_resolve_path, arguments["files"]))
    prompt = _read_prompt_argument(arguments["prompt"], notice="Estimating..." if dry_run else "Sending...")
    request = StartRequest(
        prompts=[prompt],
        preset=arguments["preset"],
        model=arguments["model"],
        effort=arguments["effort"],
        web_search=arguments["web_search"],
        files=list(map(str, files)),
        previous_job_id=find_previous(arguments),
        batch=arguments["batch"],
        priority=int(arguments["high"]),
        client=CLIENT,
        options=dict(map(_parse_option, arguments["options"])),
    )
    if arguments["new"]:
        request = allow_duplicate(request)
    if dry_run:
        request = replace(request, options={**request.options, "dry_run": True})
    return request, tuple(dict.fromkeys(map(_find_existing_folder, files)))


def _read_prompt_argument(prompt: str, *, notice: str) -> str:
    """Return the prompt with the piped input appended, and show that the command reads it."""
    if prompt != "-":
        show_notice(notice)
        return read_prompt(prompt)
    show_notice("Reading stdin...")
    prompt = read_prompt("-")
    show_notice(notice)
    return prompt


def allow_duplicate(request: "StartRequest") -> "StartRequest":
    """Return the request for a job of its own, even if identical jobs exist."""
    return replace(request, options={**request.options, "allow_duplicate": True})


def _parse_option(argument: str) -> tuple[str, Any]:
    name, equals, value = argument.partition("=")
    if not equals:
        raise click.BadParameter(f"{argument!r} is not NAME=JSON, such as max_output_tokens=2000.")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value  # a word needs no quotes


def _resolve_path(argument: str) -> Path:
    """Return an argument as an absolute path. Only a leading `..` is resolved, since a later one may follow a link."""
    if not argument:
        raise click.BadParameter("--file needs a path, and this one is empty.")
    try:
        folder, path = Path.cwd(), Path(argument).expanduser()
    except RuntimeError:
        raise click.BadParameter(f"--file {argument}: no such home folder. Write the full path.") from None
    while path.parts[:1] == ("..",):
        folder, path = folder.parent, path.relative_to("..")
    return folder / path


def _find_existing_folder(file: Path) -> Path:
    """Return the nearest existing folder above a file or pattern."""
    return next(folder for folder in (*file.parents, file) if folder.is_dir() and not GLOB_CHARS & set(str(folder)))
