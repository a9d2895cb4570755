"""The help of every command has a group and examples, fits the terminal, and names only what exists."""

import builtins
import dis
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import CodeType

import click
import pytest
from click.testing import CliRunner
from fork_server import COMMAND, run
from hosts import hosting
from terminals import LIMIT_S

import agent_jobs.cli
from agent_jobs.cli.command_help import (
    DOCUMENTATION,
    EXAMPLES,
    GROUPS,
    OTHER_GROUP,
    HelpFormatter,
    find_summary,
    list_groups,
)
from agent_jobs.cli.main import COMMANDS, cli
from agent_jobs.cli.session import Exit
from agent_jobs.errors import JobNotFoundError
from agent_jobs.settings.settings import VARIABLES, Settings

ROOT = Path(__file__).parents[2]
WIDTHS = (60, 80, 160)
#: Columns of a terminal in which no line of a help text is wrapped.
UNWRAPPED = 10_000


def list_commands(group: click.Group = cli, name: str = "") -> Iterator[str]:
    """Yield the names of all commands, with those below other commands."""
    context = group.make_context("agent-jobs", [], resilient_parsing=True)
    for part in group.list_commands(context):
        command = group.get_command(context, part)
        assert command is not None
        yield f"{name} {part}".strip()
        if isinstance(command, click.Group):
            yield from list_commands(command, f"{name} {part}".strip())


def make_context(name: str) -> click.Context:
    """Return the context of a command, as the command line makes it."""
    context = cli.make_context("agent-jobs", [], resilient_parsing=True)
    for part in name.split():
        assert isinstance(context.command, click.Group)
        command = context.command.get_command(context, part)
        assert command is not None
        context = command.make_context(part, [], parent=context, resilient_parsing=True)
    return context


def render_help(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    context = make_context(name)
    if columns == UNWRAPPED:
        context.max_content_width = UNWRAPPED
    return context.get_help()


NAMES = ["", *list_commands()]


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_the_terminal_and_breaks_no_word(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = render_help(name, UNWRAPPED, monkeypatch).split()
    for columns in WIDTHS:
        text = render_help(name, columns, monkeypatch)
        too_long = [line for line in text.splitlines() if len(line) > columns and len(line.split()) > 1]
        assert too_long == [], columns
        assert text.split() == words, columns


@pytest.mark.parametrize("name", NAMES)
def test_help_points_to_no_file_of_the_repository(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = render_help(name, UNWRAPPED, monkeypatch).replace(DOCUMENTATION, "")
    assert re.findall(r"\bdocs/|\bREADME|\.md\b|\bexamples/|\bsrc/", text) == []


def test_every_command_prints_its_help() -> None:
    for name in NAMES:
        result = CliRunner().invoke(cli, [*name.split(), "--help"])
        assert (result.exit_code, result.stderr) == (0, ""), f"{name}: {result.output}"
        assert result.stdout.startswith("Usage: "), name


def list_global_names(code: CodeType) -> set[str]:
    """Return the global names that functions in this code read when they run."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    return names.union(*(list_global_names(part) for part in code.co_consts if isinstance(part, CodeType)))


def test_every_module_of_commands_has_the_names_that_its_functions_use() -> None:
    """A help text does not run the command: without this, a lost import shows only when a user runs the command."""
    for found in iter_modules(agent_jobs.cli.__path__):
        module = import_module(f"agent_jobs.cli.{found.name}")
        code = compile(Path(str(module.__file__)).read_text(), found.name, "exec")
        assert list_global_names(code) - vars(module).keys() - vars(builtins).keys() == set(), found.name


def test_address_of_the_documentation_is_that_of_the_package() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert urls["Documentation"] == DOCUMENTATION


def test_help_lists_the_exit_statuses_and_the_first_variables() -> None:
    output = CliRunner().invoke(cli, ["-h"]).output
    for exit_status in Exit:
        assert re.search(rf"\b{exit_status.value} [a-z]", output), exit_status
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AGENT_JOBS_MODEL", "AGENT_JOBS_DATA_DIR"):
        assert name in output
        assert name in VARIABLES


def test_every_command_is_in_one_group_with_its_first_sentence() -> None:
    grouped = [name for commands in GROUPS.values() for name in commands]
    assert sorted(grouped) == sorted(COMMANDS), "put each command of COMMANDS into a group of cli/command_help.py"
    summaries = {name: make_context(name).command.get_short_help_str(UNWRAPPED) for name in COMMANDS}
    assert summaries == {name: find_summary(name) for name in COMMANDS}


def test_command_without_a_group_is_shown_last() -> None:
    *groups, (heading, names) = list_groups([*COMMANDS, "later"])
    assert (heading, names) == (OTHER_GROUP, ["later"])
    assert [heading for heading, _ in groups] == list(GROUPS)


@pytest.mark.parametrize("name", NAMES[1:])
def test_every_command_has_one_or_two_examples_in_its_help(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= len(EXAMPLES[name]) <= 2
    text = render_help(name, 60, monkeypatch)
    for example in EXAMPLES[name]:
        assert all(f"    {line}\n" in f"{text}\n" for line in example.split("\n")), text
    assert text.index("Example") > text.index("--help")


def test_every_example_belongs_to_a_command() -> None:
    assert EXAMPLES.keys() == set(NAMES[1:])


def list_example_lines() -> Iterator[tuple[str, list[str]]]:
    """Yield the arguments of every call of agent-jobs in the examples, by the command whose example it is."""
    for name in NAMES[1:]:
        for example in EXAMPLES.get(name, ()):
            for line in example.replace("\\\n", " ").split("\n"):
                words = shlex.split(line)
                if "agent-jobs" in words and not line.startswith("claude"):
                    yield name, words[words.index("agent-jobs") + 1 :]


EXAMPLE_LINES = [pytest.param(name, arguments, id=" ".join(arguments)) for name, arguments in list_example_lines()]


@pytest.mark.parametrize(("name", "arguments"), EXAMPLE_LINES)
def test_example_is_a_valid_command_line(
    name: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "night.jsonl").write_text('"Name three rivers"\n')
    context = cli.make_context("agent-jobs", list(arguments))
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]  # pyright: ignore[reportPrivateUsage]
        if not rest and context.command.invoke_without_command:
            break
        part, command, rest = context.command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(part, rest, parent=context)
    assert context.command_path.startswith(f"agent-jobs {name}") or name == "emulator"


@pytest.mark.parametrize("arguments", [[], ["run"], ["completion", "install"]], ids=" ".join)
def test_short_flag_h_prints_the_help(arguments: list[str]) -> None:
    short, long = (run([*COMMAND, *arguments, option], timeout=LIMIT_S) for option in ("-h", "--help"))
    assert short.stdout == long.stdout
    assert short.stdout.startswith(" ".join(["Usage: agent-jobs", *arguments]))


def test_list_of_commands_imports_no_command() -> None:
    code = (
        "import sys; from agent_jobs.cli.main import cli, COMMANDS; cli(['--help'], standalone_mode=False); "
        "heavy = {'rich', 'anyio', 'asyncio', 'sqlite3', 'httpx2', 'agent_jobs.app', 'agent_jobs.settings.settings'}; "
        "modules = {f'agent_jobs.cli.{name}' for name in COMMANDS.values()}; "
        "print(sorted((heavy | modules) & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Start jobs:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "near"),
    [(["lst"], "list"), (["modles"], "models"), (["completion", "instal"], "install"), (["completion", "sho"], "show")],
)
def test_misspelt_command_is_refused_with_the_nearest(
    arguments: list[str], near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments, prog_name="agent-jobs")
    assert left.value.code == 2
    assert f"Did you mean {near!r}?" in capsys.readouterr().err


def test_wrapping_keeps_hyphenated_names_and_preformatted_lines() -> None:
    formatter = HelpFormatter(width=24)
    with formatter.indentation():
        formatter.write_text("Knows continue and lm-studio, roo and a-very-long-name-without-a-blank.")
        formatter.write_text("\b\n  kept as\n    it is")
    formatter.write_dl([("--short", "One two three four five."), ("--a-much-longer-option PATH", "Six.")])
    assert formatter.getvalue().split("\n") == [
        "  Knows continue and",
        "  lm-studio, roo and",
        "  a-very-long-name-without-a-blank.",
        "    kept as",
        "      it is",
        "--short  One two three",
        "         four five.",
        "--a-much-longer-option PATH",
        "         Six.",
        "",
    ]


async def test_last_is_the_newest_job(settings: Settings) -> None:
    async with hosting(settings) as host:
        engine = await host.app.engine()
        with pytest.raises(JobNotFoundError, match="no job 'last'"):
            await engine.find_full_id("last")
        for prompt in ("first", "second"):
            newest = (await host.call("agent_start", prompt=prompt, wait_s=0))["job_id"]
            assert await engine.find_full_id("last") == newest
