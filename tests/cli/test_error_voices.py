"""Every bad input is refused in two sentences, in the words of a model or in the words of a person."""

import json
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from click.testing import CliRunner, Result
from hosts import Host, hosting, read
from mcp import Client
from postgres_server import TEMPLATE, new_database, run_statements

from agent_jobs.app import open_app
from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer
from agent_jobs.errors import ConfigError
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

SECRET = "very-secret"  # no key
NOT_STRICT = "give every object additionalProperties false and list all its properties in required"
#: Bytes of the longest refusal to a model, which pays for each token that it reads.
ANSWER_BYTES = 320
#: Words that only one of the two readers understands.
OF_TOOLS = re.compile(
    r"\bagent_(start|poll|result|list|reply|cancel)\b|\boptions\.\w|\b[Tt]he user\b|this server's entry"
)
OF_THE_TERMINAL = re.compile(r"(?<![\w-])--\w|with: agent-jobs")


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A bad input, given to a tool and typed as a command.

    Args:
        tool: The tool.
        arguments: Its arguments.
        typed: The command; None if no command takes this input.
        problem: What is wrong, as a model reads it.
        flagged: The same as a person reads it, if it names an argument.
        model: The fix for a model.
        person: The fix for a person, if it is another one.
    """

    tool: str = "agent_start"
    arguments: dict[str, Any]
    typed: Sequence[str] | None
    problem: str
    flagged: str = ""
    model: str
    person: str = ""


def start(
    problem: str, model: str, person: str = "", *, typed: Sequence[str] = (), flagged: str = "", **arguments: Any
) -> Bad:
    """Return a bad start, given as a tool's arguments and as flags."""
    return Bad(
        arguments={"prompt": "x", **arguments},
        typed=("run", "x", *typed),
        problem=problem,
        flagged=flagged,
        model=model,
        person=person,
    )


def tool_with(authorization: str) -> dict[str, Any]:
    """Return a hosted tool with a secret."""
    return {
        "type": "mcp", "server_label": "a", "server_url": "https://a.example", "authorization": authorization,
    }  # fmt: skip


def option(name: str, value: Any, written: str, accepts: str, given: str) -> Bad:
    """Return a start with an option whose value is not accepted."""
    return start(
        f"options.{name} accepts {accepts}, not {given}.",
        "Correct it and call again.",
        "Correct it and try again.",
        typed=("--option", f"{name}={written}"),
        flagged=f"--option {name} accepts {accepts}, not {given}.",
        options={name: value},
    )


BAD: dict[str, Bad] = {
    "misspelt effort": start(
        "effort does not accept 'hihg'.", "Did you mean 'high'?", typed=("--effort", "hihg"),
        flagged="--effort does not accept 'hihg'.", effort="hihg",
    ),
    "unknown effort": start(
        "effort does not accept '7'.", "Use one of none, minimal, low, medium, high, xhigh, max.",
        typed=("--effort", "7"), flagged="--effort does not accept '7'.", effort="7",
    ),
    "misspelt preset": start(
        "preset does not accept 'thnik'.", "Did you mean 'think'?", typed=("--preset", "thnik"),
        flagged="--preset does not accept 'thnik'.", preset="thnik",
    ),
    "misspelt option": start(
        "options does not accept 'instruction'.", "Did you mean 'instructions'?",
        typed=("--option", 'instruction="brief"'), flagged="--option does not accept 'instruction'.",
        options={"instruction": "brief"},
    ),
    "value of an option": start(
        "options.verbosity does not accept 'loud'.", "Use one of low, medium, high.",
        typed=("--option", "verbosity=loud"), flagged="--option verbosity does not accept 'loud'.",
        options={"verbosity": "loud"},
    ),
    "few tokens": option("max_output_tokens", 3, "3", "a whole number of at least 16", "3"),
    "text for a number": option("temperature", "hot", '"hot"', "a number from 0 to 2", "this string"),
    "number for a text": option("instructions", 3, "3", "a non-empty string", "3"),
    "no cost": option("max_cost_usd", 0, "0", "an amount of US dollars above 0", "0"),
    "flag": option("allow_duplicate", "maybe", '"maybe"', "true or false", "this string"),
    "two schemas": start(
        "options.format and options.json_schema differ.", "Give options.json_schema only.",
        "Give --option json_schema only.",
        typed=("--option", 'json_schema={"type":"object"}', "--option", 'format={"type":"object","title":"x"}'),
        flagged="--option format and --option json_schema differ.",
        options={"json_schema": {"type": "object"}, "format": {"type": "object", "title": "x"}},
    ),
    "strict schema": start(
        f"options.json_schema is not strict: {NOT_STRICT}.",
        "Correct the schema, or leave strict out.",
        typed=("--option", 'json_schema={"schema":{"type":"object","properties":{}},"strict":true}'),
        flagged=f"--option json_schema is not strict: {NOT_STRICT}.",
        options={"json_schema": {"schema": {"type": "object", "properties": {}}, "strict": True}},
    ),
    "tool of the client": start(
        "options.tools cannot contain custom tools yet, since agent-jobs cannot answer their calls.", "Leave it out.",
        typed=("--option", 'tools=[{"type":"custom"}]'),
        flagged="--option tools cannot contain custom tools yet, since agent-jobs cannot answer their calls.",
        options={"tools": [{"type": "custom"}]},
    ),
    "secret in plain text": start(
        'options.tools accepts secrets by name only, like "authorization":"${NAME}".',
        'Ask the user to list its name in AGENT_JOBS_SECRETS, and write "${NAME}" or "Bearer ${NAME}" in its place.',
        "List its name in AGENT_JOBS_SECRETS, and write ${NAME} or Bearer ${NAME} in its place.",
        typed=("--option", f"tools={json.dumps([tool_with(SECRET)])}"),
        flagged='--option tools accepts secrets by name only, like "authorization":"${NAME}".',
        options={"tools": [tool_with(SECRET)]},
    ),
    "secret that is not released": start(
        "A hosted tool names ${HOME}, which may not be read here.", "Ask the user to add HOME to AGENT_JOBS_SECRETS.",
        "Add HOME to AGENT_JOBS_SECRETS.",
        typed=("--option", f"tools={json.dumps([tool_with('${HOME}')])}"), options={"tools": [tool_with("${HOME}")]},
    ),
    "no tool servers": start(
        "There are no tool servers.", "Ask the user to set AGENT_JOBS_TOOLBOX to the file that lists them.",
        "Set AGENT_JOBS_TOOLBOX to the file that lists them.",
        typed=("--option", 'toolbox=["git"]'), options={"toolbox": ["git"]},
    ),
    "empty prompt": Bad(
        arguments={"prompt": " "}, typed=("run", " "), problem="prompt is empty.",
        model="Say what the job is to do.",
    ),
    "long batch name": start(
        "batch accepts a name of at most 60 characters, not 61.", "Shorten it.", typed=("--batch", "b" * 61),
        flagged="--batch accepts a name of at most 60 characters, not 61.", batch="b" * 61,
    ),
    "price that is not known": Bad(
        arguments={"prompt": "x", "model": "m", "options": {"max_cost_usd": 1, "max_output_tokens": 100}},
        typed=("run", "x", "--model", "m", "--option", "max_cost_usd=1", "--option", "max_output_tokens=100"),
        problem="The cost has no bound, since agent-jobs does not know what 'm' costs in the default tier.",
        model="Ask the user to add it to the price table of AGENT_JOBS_PRICES.",
        person="Add it to the price table of AGENT_JOBS_PRICES.",
    ),
    "output without a bound": Bad(
        arguments={"prompt": "x", "options": {"max_cost_usd": 1}},
        typed=("run", "x", "--option", "max_cost_usd=1"),
        problem="Without a limit on its output, the cost has no bound.",
        model="Set options.max_output_tokens.", person="Add --option max_output_tokens=N.",
    ),
    "several prompts": Bad(
        arguments={"prompts": ["x"] * 21}, typed=None, problem="prompts accepts 1 to 20 strings, not 21.",
        model="Start the others in another call.",
    ),
    "prompt beside prompts": Bad(
        arguments={"prompt": "a", "prompts": ["b"]}, typed=None, problem="Both prompt and prompts are given.",
        model="Give either prompt, or prompts for several jobs.",
    ),
    "argument of no tool": Bad(
        arguments={"promt": "x"}, typed=None, problem="agent_start does not accept 'promt'.",
        model="Did you mean 'prompt'?",
    ),
    "negative wait": Bad(
        tool="agent_poll", arguments={"job_id": "x", "wait_s": -1}, typed=None,
        problem="wait_s: input should be greater than or equal to 0.", model="Correct it and call again.",
    ),
    "cancel of nothing": Bad(
        tool="agent_cancel", arguments={}, typed=None, problem="The call names no job.",
        model="Give job_id, job_ids or batch.",
    ),
    "job that is not there": Bad(
        tool="agent_poll", arguments={"job_id": "job_none"}, typed=("show", "job_none"),
        problem="There is no job 'job_none'.", model="There are no jobs yet; agent_start makes one.",
        person="There are no jobs yet; start one with: agent-jobs run",
    ),
    "previous job that is not there": start(
        "There is no job 'job_none'.", "There are no jobs yet; agent_start makes one.",
        "There are no jobs yet; start one with: agent-jobs run", typed=("--previous", "job_none"),
        previous_job_id="job_none",
    ),
    "batch that is not there": Bad(
        tool="agent_poll", arguments={"batch": "b", "wait_s": 0}, typed=None,
        problem="There is no batch 'b'.", model="Call agent_list to see all jobs.",
    ),
}  # fmt: skip
FILES: dict[str, Bad] = {
    "misspelt file": start(
        "Nothing matches 'notes.tx'.", "Did you mean 'notes.txt'?", typed=("--file", "notes.tx"), files=["notes.tx"]
    ),
    "file of a secret": start(
        ".env seems to contain keys or passwords, so it is not attached.", "Copy its harmless parts into another file.",
        typed=("--file", ".env"), files=[".env"],
    ),
    "binary file": start(
        "blob.bin is a binary file that no model can read.",
        "Attach text, a PDF, or an image as PNG, JPEG, GIF or WebP.", typed=("--file", "blob.bin"), files=["blob.bin"],
    ),
    "empty file": start(
        "empty.pdf is empty (0 bytes).", "Make or download it again.", typed=("--file", "empty.pdf"),
        files=["empty.pdf"],
    ),
    "path upwards": start(
        "files does not accept 'a/../b'.", "Write the path without '..'.", typed=("--file", "a/../b"),
        flagged="--file does not accept 'a/../b'.", files=["a/../b"],
    ),
}  # fmt: skip


def check_two_voices(bad: Bad, to_model: str, to_person: str) -> None:
    """Check the messages that both readers get for a bad input."""
    assert to_model == f"{bad.problem} {bad.model}"
    assert not OF_THE_TERMINAL.search(to_model)
    assert len(to_model.encode()) <= ANSWER_BYTES
    if bad.typed is None:
        return
    assert to_person == f"{bad.flagged or bad.problem} {bad.person or bad.model}"
    assert not OF_TOOLS.search(to_person)
    assert SECRET not in to_model + to_person


@dataclass(frozen=True)
class Readers:
    """A model with tools and a person with a terminal, with the same jobs."""

    settings: Settings

    def list_refusals(self, table: Sequence[Bad]) -> list[str]:
        """Return the message that a model gets for each bad input."""

        async def call() -> list[str]:
            async with hosting(self.settings) as host:
                return [await host.refused(bad.tool, **bad.arguments) for bad in table]

        return anyio.run(call)

    def type(self, words: Sequence[str], **environment: str) -> str:
        """Return the message that a person gets for a refused command."""
        result = self.run(words, **environment)
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        [refusal] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        return refusal.removeprefix("Error: ")

    def run(self, words: Sequence[str], **environment: str) -> Result:
        """Return the output of a command."""
        key = self.settings.api_key
        ours = {
            "OPENAI_API_KEY": None if key is None else key.get_secret_value(),
            "OPENAI_BASE_URL": self.settings.base_url,
            "AGENT_JOBS_DATA_DIR": str(self.settings.data_dir),
        }
        return CliRunner().invoke(cli, list(words), env={**ours, **environment})


@pytest.fixture
def readers(settings: Settings) -> Readers:
    return Readers(settings)


def test_bad_input_is_refused_in_two_sentences_for_each_reader(readers: Readers, upstream: RunningServer) -> None:
    to_model = readers.list_refusals([*BAD.values()])
    for bad, refusal in zip(BAD.values(), to_model, strict=True):
        to_person = readers.type(bad.typed) if bad.typed is not None else ""
        check_two_voices(bad, refusal, to_person)
    assert upstream.emulator.counters()["creates"] == 0


def test_file_that_cannot_be_attached_is_refused_in_two_sentences(
    readers: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, content in {"notes.txt": b"a", ".env": b"A=1", "blob.bin": b"\0\1\2", "empty.pdf": b""}.items():
        (folder / name).write_bytes(content)
    monkeypatch.chdir(folder)
    to_model = Readers(replace(readers.settings, file_roots=(folder,))).list_refusals([*FILES.values()])
    for bad, refusal in zip(FILES.values(), to_model, strict=True):
        assert bad.typed is not None
        # A command releases the folder of the file, so the terminal shows whole paths.
        check_two_voices(bad, refusal, readers.type(bad.typed).replace(f"{folder}/", ""))


async def list_refusals_for_jobs(host: Host, job_id: str) -> dict[str, str]:
    """Return the messages that a model gets for bad calls about a finished job."""
    return {
        "reply": await host.refused("agent_reply", job_id=job_id, approve=["x"]),
        "result": await host.refused("agent_poll", job_id=f"{job_id}x"),
    }


def test_bad_call_about_a_finished_job_is_refused_in_two_sentences(readers: Readers) -> None:
    async def call() -> tuple[str, dict[str, str]]:
        async with hosting(replace(readers.settings, approvals="model")) as host:
            job_id = (await host.start("work"))["job_id"]
            await host.end(job_id)
            return job_id, await list_refusals_for_jobs(host, job_id)

    job_id, to_model = anyio.run(call)
    assert to_model["reply"] == f"{job_id} is completed and needs no answer. Call agent_poll job_id={job_id}."
    newest = f"The newest are {job_id} (work)."
    assert to_model["result"] == f"There is no job '{job_id}x'. {newest}"
    problem = f"{job_id} is completed and needs no answer."
    assert (
        readers.type(("reply", job_id, "--approve", "x")) == f"{problem} See its state with: agent-jobs show {job_id}"
    )
    assert readers.type(("show", f"{job_id}x")) == f"There is no job '{job_id}x'. {newest}"


def test_missing_key_is_explained_in_two_sentences(readers: Readers) -> None:
    keyless = Readers(replace(readers.settings, api_key=None))
    [to_model] = keyless.list_refusals([BAD["misspelt effort"]])
    host = readers.settings.base_url.removesuffix("/v1")
    command = f"agent-jobs key set --endpoint {readers.settings.base_url}"
    problem = f"No API key is set for {host}."
    assert to_model == f"{problem} Ask the user to run `{command}` in a terminal, then try again."
    assert keyless.type(("run", "x")) == f"{problem} Set it with: {command}"


@pytest.mark.parametrize(
    ("name", "value", "sentences"),
    [
        ("AGENT_JOBS_DAILY_BUDGET_USD", "much", "AGENT_JOBS_DAILY_BUDGET_USD accepts"),
        ("AGENT_JOBS_APPROVALS", "modle", "AGENT_JOBS_APPROVALS accepts"),
        ("AGENT_JOBS_DATA_DIR", "data", "AGENT_JOBS_DATA_DIR accepts a path that starts with / or ~. A host starts"),
    ],
)
def test_setting_that_cannot_be_used_is_explained_to_each_reader(
    readers: Readers, name: str, value: str, sentences: str
) -> None:
    async def call() -> str:
        environ = {"OPENAI_API_KEY": "sk-secret", name: value}
        with pytest.raises(ConfigError) as refused:
            Settings.from_env(environ)
        async with open_app(refused.value) as app, Client(build_server(app.engine)) as client:
            return read(await client.call_tool("agent_list", {}))["error"]["message"]

    to_model = anyio.run(call)
    to_person = readers.type(("list",), **{name: value})
    assert to_person.startswith(sentences)
    assert len(re.findall(r"[.?](?= [A-Z]|$)", to_person)) == 2
    assert to_model == f"Ask the user to change a setting. {to_person}"


def make_newer(database: Path) -> None:
    with closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA user_version = 999")


def damage(database: Path) -> None:
    database.write_bytes(b"this is no database" * 100)


@pytest.mark.parametrize(
    ("break_database", "problem", "step"),
    [
        (make_newer, "was written by a newer agent-jobs (schema 999, this one knows", "update agent-jobs, or set"),
        (damage, "is damaged (file is not a database).", "move it away, or set AGENT_JOBS_DATA_DIR to another folder."),
    ],
    ids=["newer", "damaged"],
)
def test_database_that_cannot_be_used_is_explained_to_each_reader(
    readers: Readers, break_database: Callable[[Path], None], problem: str, step: str
) -> None:
    assert readers.settings.data_dir is not None
    readers.settings.data_dir.mkdir()
    database = readers.settings.data_dir / "jobs.db"
    break_database(database)
    [to_model] = readers.list_refusals([BAD["misspelt effort"]])
    to_person = readers.type(("list",))
    assert to_model.startswith(f"{database} {problem}")
    assert f" Ask the user to {step}" in to_model
    assert to_person == to_model.replace("Ask the user to u", "U").replace("Ask the user to m", "M")


@pytest.mark.parametrize(
    ("place", "template", "problem", "step"),
    [
        ("127.0.0.1:1/x", "template0", "cannot be reached", "start the server, or correct AGENT_JOBS_DATABASE_URL."),
        (
            "{host}/no_such",
            "template0",
            "does not exist",
            "create it with createdb, or correct AGENT_JOBS_DATABASE_URL.",
        ),
        ("{host}/{name}", "template0", "has no tables of agent-jobs yet", "run `agent-jobs db upgrade`."),
        ("{host}/{name}", TEMPLATE, "was upgraded by a newer agent-jobs", "update agent-jobs, or set"),
    ],
    ids=["no server", "no database", "no tables", "newer"],
)
def test_postgresql_that_cannot_be_used_is_explained_to_each_reader(
    readers: Readers, postgres_server_url: str, place: str, template: str, problem: str, step: str
) -> None:
    with new_database(postgres_server_url, template) as made:
        if template == TEMPLATE:
            run_statements(made, "INSERT INTO schema_version VALUES (99)")
        parts = urlsplit(made)
        place = place.format(host=parts.netloc.rpartition("@")[2], name=parts.path.lstrip("/"))
        url = f"postgresql://{parts.username}:{parts.password or SECRET}@{place}"
        shared = Readers(replace(readers.settings, database_url=SecretStr(url)))
        [to_model] = shared.list_refusals([BAD["misspelt effort"]])
        to_person = shared.type(("list",), AGENT_JOBS_DATABASE_URL=url)
    host, _, name = place.partition("/")
    assert to_model.startswith(f"The PostgreSQL database {name} at {host} {problem}")
    assert f" Ask the user to {step}" in to_model
    assert to_person == re.sub("Ask the user to (.)", lambda found: found[1].upper(), to_model)
    assert SECRET not in to_model


def test_error_as_json_has_the_words_for_a_person(readers: Readers) -> None:
    shown = readers.run(("show", "job_none", "--json"))
    assert json.loads(shown.stdout) == {
        "error": {
            "code": "job_not_found",
            "message": "There is no job 'job_none'. There are no jobs yet; start one with: agent-jobs run",
        }
    }


@pytest.mark.parametrize(
    ("changed", "typed", "code", "to_model", "to_person"),
    [
        ({"api_key": SecretStr("invalid")}, (), "invalid_api_key", "ask the user to run `agent-jobs key set`",
         "Set a valid key with `agent-jobs key set`, then start it again."),
        ({}, ("--model", "gpt-none"), "model_not_found", "agent_start with another model",
         "Choose another with --model."),
    ],
)  # fmt: skip
def test_next_step_after_a_failure_is_in_the_words_of_each_reader(
    readers: Readers, changed: dict[str, Any], typed: Sequence[str], code: str, to_model: str, to_person: str
) -> None:
    readers = Readers(replace(readers.settings, **changed))
    arguments: dict[str, Any] = {"model": typed[1]} if typed else {}

    async def call() -> dict[str, Any]:
        async with hosting(readers.settings) as host:
            return await host.start("to a model", wait_s=5, **arguments)

    answer = anyio.run(call)
    assert answer["error"]["code"] == code
    assert answer["next"].startswith(to_model)
    shown = readers.run(("run", "to a person", *typed))
    assert shown.exit_code == 3, shown.output
    assert shown.stderr.splitlines()[-1] == to_person
    assert not OF_TOOLS.search(shown.stderr)
