"""The terminal words errors for a person, although the packages below word them for a model."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent_jobs
from agent_jobs.app import describe_missing_key
from agent_jobs.cli.main import cli
from agent_jobs.cli.wording import describe_error, reword
from agent_jobs.errors import ConfigError, RequestError, UpstreamError
from agent_jobs.settings import Settings

SOURCE = Path(agent_jobs.__file__).parent
#: Packages and modules whose sentences a command may print.
BELOW = (
    "api_key.py", "app.py", "attachments", "engine", "install", "jobs", "pricing", "request", "settings.py", "store",
    "toolbox", "upstream", "variable_names.py",
)  # fmt: skip
#: Phrases that speak to a model.
FOR_MODELS = re.compile(r"\bthe user\b|\boptions\.\w|\bagent_(start|poll|result|list|reply|cancel)\b", re.I)


def list_sentences() -> Iterator[str]:
    """Yield every text of the packages below that holds a phrase for a model, with ? for what is filled in."""
    for name in BELOW:
        path = SOURCE / name
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            yield from _list_texts(ast.parse(file.read_text()))


def _list_texts(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "?" for part in node.values)
            yield "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_terminal_rewords_every_sentence_for_a_model() -> None:
    sentences = [text for text in list_sentences() if FOR_MODELS.search(text)]
    assert len(sentences) > 20, "the search finds nothing"
    left = {text: reword(text) for text in sentences if FOR_MODELS.search(reword(text))}
    assert left == {}


@pytest.mark.parametrize(
    ("for_model", "for_person"),
    [
        (
            "No file can be attached: ask the user to set AGENT_JOBS_FILE_ROOTS.",
            "No file can be attached: set AGENT_JOBS_FILE_ROOTS.",
        ),
        ("The file has no servers. Ask the user to correct it.", "The file has no servers. Correct it."),
        ("The key is refused. Ask the user; try again in 60 s.", "The key is refused. Try again in 60 s."),
        ("Ask the user to put X into the env of this server's entry.", "Put X into the environment."),
        ("Lower options.max_tool_calls, or allow more.", "Lower --option max_tool_calls, or allow more."),
        ("Start it again with options.allow_duplicate.", "Start it again with --new."),
        ("There are no jobs yet; agent_start makes one.", "There are no jobs yet; `agent-jobs run` makes one."),
        ("It runs: agent_poll it until it ends.", "It runs: watch it with `agent-jobs watch` until it ends."),
        ("agent_start again with a narrower prompt", "start it again with a narrower prompt"),
        ("agent_result job_id=job_1 part=items", "agent-jobs result job_1 --part items"),
        ("The user's own servers stand where the user keeps them.", "Your own servers stand where you keep them."),
    ],
)  # fmt: skip
def test_terminal_speaks_to_the_reader(for_model: str, for_person: str) -> None:
    assert reword(for_model) == for_person
    assert describe_error(RequestError(for_model)) == for_person


@pytest.mark.parametrize(
    ("url", "fact", "command"),
    [
        ("https://api.openai.com/v1", "No API key is set.", "agent-jobs key set"),
        (
            "https://r.openai.azure.com/openai/v1",
            "No API key is set for r.openai.azure.com.",
            "agent-jobs key set --endpoint https://r.openai.azure.com/openai/v1",
        ),
    ],
)
def test_terminal_words_a_missing_key_in_two_sentences(url: str, fact: str, command: str) -> None:
    for_model = describe_missing_key(Settings(base_url=url))
    for_person = f"{fact} Set it with: {command}"
    assert for_model == f"{fact} Ask the user to run `{command}` in a terminal, then try again."
    assert describe_error(ConfigError(for_model)) == for_person
    assert describe_error(ConfigError(f"{for_model} X is no setting.")) == f"{for_person} X is no setting."


def test_terminal_adds_the_fix_of_an_error() -> None:
    refused = UpstreamError("OPENAI_BASE_URL: connection refused", fix="check host and port in OPENAI_BASE_URL")
    assert describe_error(refused) == "OPENAI_BASE_URL: connection refused. Check host and port in OPENAI_BASE_URL."
    assert describe_error(UpstreamError("Too many requests.")) == "Too many requests."


def list_help_texts() -> Iterator[tuple[str, str]]:
    """Yield the help of every command by its name."""
    context = cli.make_context("agent-jobs", [], resilient_parsing=True)
    yield "agent-jobs", cli.get_help(context)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command.make_context(name, [], parent=context, resilient_parsing=True).get_help()


@pytest.mark.parametrize(("name", "text"), [pytest.param(*each, id=each[0]) for each in list_help_texts()])
def test_help_of_a_command_is_in_plain_words(name: str, text: str) -> None:
    odd = r"\b(told|nobody|somebody|whoever|upstream has|goes on|go on|so many|anew|brought|unasked)\b"
    assert re.findall(odd, text, re.I) == [], text
    summary = text.splitlines()[2].strip() if name != "agent-jobs" else ""
    assert not summary.endswith("...")
