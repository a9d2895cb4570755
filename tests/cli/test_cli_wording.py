"""No package below the faces addresses a reader, and the help uses plain words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent_jobs
from agent_jobs.cli.main import cli

SOURCE = Path(agent_jobs.__file__).parent
#: Packages and modules below the faces, whose sentences a command may print.
BELOW = (
    "api_key.py", "app.py", "attachments", "engine", "install", "jobs", "pricing", "request", "store",
    "toolbox", "upstream", "variable_names.py",
)  # fmt: skip
#: Texts that are only names of arguments and tools, that only a model reads, or that are paths of a preset's file.
FOR_OTHERS = re.compile(
    r"options\.\w+|agent_\w+|Call agent_start with preset=.*|The user denied this call\.|Not done\. The user says: \??"
    r"|options\.key belongs to one job and not to a preset\.",
    re.S,
)
#: Phrases that address a model.
FOR_MODELS = re.compile(r"\bthe user\b|\boptions\.\w|\bagent_(start|poll|result|list|reply|cancel)\b", re.I)


def list_sentences() -> Iterator[str]:
    """Yield every text of these packages except docstrings, with ? in place of inserted values."""
    for name in BELOW:
        path = SOURCE / name
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            yield from _list_texts(ast.parse(file.read_text()))


def _list_texts(tree: ast.Module) -> Iterator[str]:
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in docstrings:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "?" for part in node.values)
            yield "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_package_below_the_faces_speaks_to_a_model() -> None:
    texts = [text for text in list_sentences() if not FOR_OTHERS.fullmatch(text)]
    assert len(texts) > 1000, "no text was found"
    assert [text for text in texts if FOR_MODELS.search(text)] == []


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


def test_no_colour_of_the_terminal_disappears_on_a_white_or_a_black_screen() -> None:
    unreadable = re.compile(r"(bright_)?(yellow|white|black)|bright_\w+")
    found = [
        (path.name, node.value)
        for path in sorted((SOURCE / "cli").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and unreadable.fullmatch(node.value)
    ]
    assert found == []
