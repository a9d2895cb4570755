"""`agent-jobs models` and `agent-jobs presets`: the listed names, their sources, and tables that fit a terminal."""

import json
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from rich.cells import cell_len
from terminals import Terminal
from test_model_list import NOT_FOUND, PAGE, Answer, Models, build_cards

from agent_jobs.cli.display.table import render_table
from agent_jobs.cli.display.terminal import UNLIMITED
from agent_jobs.cli.main import cli
from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.server import run_emulator
from agent_jobs.request.models import list_known_names, load_models

KEY = "sk-secret-0123456789"
OPENAI = "https://api.openai.com/v1"
#: No server listens at this address.
CLOSED = "http://127.0.0.1:1/v1"
LONG_NAME = "accounts/fireworks/models/llama-v3p3-70b-instruct-with-a-long-name"
REFUSED_KEY = (401, "application/json", {"error": {"message": "Incorrect API key.", "code": "invalid_api_key"}})

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command in this process, and returns its exit status, stdout and stderr."""

    def run_command(*arguments: str, **environ: str) -> tuple[int, str, str]:
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AGENT_JOBS_MODEL", "AGENT_JOBS_PRESETS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"AGENT_JOBS_DATA_DIR": str(tmp_path / "data"), **environ}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as left:
            cli.main(arguments, prog_name="agent-jobs")
        shown = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, shown.out, shown.err

    return run_command


@contextmanager
def listing(page: Any) -> Generator[str]:
    """Serve a list of models or any other answer, and yield the base URL."""
    answer: Answer = cast(Answer, page) if isinstance(page, tuple) else (200, "application/json", page)
    emulator = Emulator()
    emulator.app.add_middleware(Models, card=NOT_FOUND, pages={"": answer}, asked=[])
    with run_emulator(emulator=emulator) as upstream:
        yield upstream.base_url


@contextmanager
def at(url: str) -> Generator[str]:
    yield url


def test_models_of_the_provider_are_listed_with_their_known_facts(run: Run, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('[models."mine"]\ninput = 1.5\noutput = 0.025\n')
    page = {
        "data": [
            {"id": "zeta", "context_length": 8192},
            *build_cards("mine", "Alpha"),
            {"id": "old", "shutdown_date": "2027-01-02"},
        ]
    }
    environ = {"OPENAI_API_KEY": KEY, "AGENT_JOBS_MODEL": "zeta", "AGENT_JOBS_PRICES": str(prices)}
    with listing(page) as url:
        status, table, _ = run("models", OPENAI_BASE_URL=url, **environ)
        _, answer, errors = run("models", "--json", OPENAI_BASE_URL=url, **environ)
    assert status == 0
    assert [line.split() for line in table.splitlines()[:5]] == [
        ["MODEL", "INPUT", "OUTPUT", "CONTEXT", "NOTE"],
        ["Alpha"],
        ["mine", "$1.50", "$0.025"],
        ["old", "ends", "2027-01-02"],
        ["zeta", "8k", "default"],
    ]
    found = json.loads(answer)
    assert errors == ""
    assert (found["source"], found["provider_url"], found["default"]) == ("provider", url, "zeta")
    assert found["models"] == [
        {"model": "Alpha"},
        {"model": "mine", "input_usd_per_million": 1.5, "output_usd_per_million": 0.025},
        {"model": "old", "shutdown_date": "2027-01-02"},
        {"model": "zeta", "default": True, "context_tokens": 8192},
    ]


def test_suggested_model_has_no_end(run: Run) -> None:
    old, environ = {"id": "b", "shutdown_date": "2027-01-02"}, {"OPENAI_API_KEY": KEY, "AGENT_JOBS_MODEL": "a"}
    for others, suggested in (([old, *build_cards("c")], "c"), ([old], "NAME")):
        with listing({"data": [*build_cards("a"), *others]}) as url:
            _, table, _ = run("models", OPENAI_BASE_URL=url, **environ)
        assert f"agent-jobs run --model {suggested} ..." in table


def test_default_that_the_provider_does_not_list_is_named(run: Run) -> None:
    with listing({"data": build_cards("a", "b")}) as url:
        _, table, _ = run("models", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url, AGENT_JOBS_MODEL="c")
    assert "c, the default of jobs, is not in this list. Set AGENT_JOBS_MODEL to one that is." in table


@pytest.mark.parametrize(
    ("arguments", "environ", "note"),
    [
        (["--known"], {"OPENAI_API_KEY": KEY}, ""),
        (["--known"], {"OPENAI_BASE_URL": CLOSED, "OPENAI_API_KEY": KEY}, ""),
        ([], {}, "no API key is set"),
        ([], {"OPENAI_API_KEY": KEY, "HTTPS_PROXY": "http://127.0.0.1:1"}, f"{OPENAI} was not reached ("),
    ],
)
def test_known_models_are_listed_without_a_provider(
    run: Run, arguments: list[str], environ: dict[str, str], note: str
) -> None:
    status, answer, errors = run("models", "--json", *arguments, **environ)
    assert status == 0
    assert note in errors
    assert bool(note) == ("These are the models that agent-jobs knows" in errors)
    found = json.loads(answer)
    assert (found["source"], found["provider_url"], found["default"]) == ("known", OPENAI, load_models()["default"])
    rows = {row["model"]: row for row in found["models"]}
    assert rows.keys() == set(list_known_names())
    assert all(row["input_usd_per_million"] < row["output_usd_per_million"] for row in rows.values())
    assert [name for name, row in rows.items() if row.get("default")] == [load_models()["default"]]


def test_default_model_of_the_user_is_among_the_known_models(run: Run) -> None:
    _, table, _ = run("models", "--known", AGENT_JOBS_MODEL="my-deployment")
    assert table.splitlines()[1].split() == ["my-deployment", "default"]


@pytest.mark.parametrize(
    ("serving", "words"),
    [
        (listing(REFUSED_KEY), ["key"]),
        (listing(NOT_FOUND), ["has no list of models (", "usually ends in /v1", "--model"]),
        (listing((405, "application/json", {})), ["has no list of models ("]),
        (listing(PAGE), ["has no list of models (", "usually ends in /v1"]),
        (listing({"data": []}), ["has no list of models (its list is empty)"]),
        (listing((500, "application/json", {"error": {"message": "Out of order."}})), ["Out of order."]),
        (at(CLOSED), ["connection refused", "Check host and port"]),
    ],
    ids=["refused key", "404", "405", "web page", "empty", "500", "closed"],
)
def test_provider_that_lists_no_models_is_answered_in_one_sentence(
    run: Run, serving: AbstractContextManager[str], words: list[str]
) -> None:
    with serving as url:
        status, table, errors = run("models", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url)
        json_status, answer, _ = run("models", "--json", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url)
    assert (status, json_status, table) == (1, 1, "")
    assert errors.startswith("Error: ")
    assert all(word in errors for word in words), errors
    assert KEY not in errors
    assert json.loads(answer)["error"]["message"]


def test_another_provider_without_a_key_is_not_shown_with_the_models_of_openai(run: Run) -> None:
    status, table, errors = run("models", OPENAI_BASE_URL=CLOSED)
    assert (status, table) == (1, "")
    assert "No API key is set" in errors


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_tables_fit_the_terminal(columns: int, tmp_path: Path) -> None:
    presets = tmp_path / "presets.toml"
    presets.write_text(
        '[minutes]\ndescription = "Write the minutes of a meeting from notes in any language, in one page"\n'
    )
    with listing({"data": build_cards(LONG_NAME, "gpt-6.1-sol")}) as url:
        terminal = Terminal(url, tmp_path / "data")
        environ: dict[str, Any] = {"AGENT_JOBS_PRESETS": str(presets), "NO_COLOR": "1" if columns == 60 else ""}
        for command in (("models",), ("models", "--known"), ("presets",)):
            shown = terminal.show(*command, columns=columns, **environ)
            too_long = [line for line in shown.text.splitlines() if cell_len(line) > columns]
            assert [line for line in too_long if len(line.split()) > 1] == [], "only a name may be longer"
            assert shown.returncode == 0, shown.text
        assert not shown.colours
    assert "minutes" in shown.text
    assert " ".join(shown.text.split()).count("Write the minutes of a meeting") == 1


def test_presets_are_listed_with_the_model_that_a_job_gets(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "presets.toml"
    mine.write_text('[minutes]\ndescription = "Minutes of a meeting"\nmodel = "m"\n[quick]\neffort = "medium"\n')
    status, table, _ = run("presets", AGENT_JOBS_PRESETS=str(mine), AGENT_JOBS_MODEL="own")
    assert status == 0
    rows = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    assert rows["deep_research"].split()[1:4] == ["own", "high", "yes"]
    assert rows["minutes"].split() == ["minutes", "m", "yours", "Minutes", "of", "a", "meeting"]
    assert rows["quick"].split()[1:4] == ["own", "medium", "changed"]
    found = json.loads(run("presets", "--json", AGENT_JOBS_PRESETS=str(mine))[1])
    assert found["file"] == str(mine)
    by_name = {each["preset"]: each for each in found["presets"]}
    assert by_name["minutes"] == {
        "preset": "minutes", "description": "Minutes of a meeting", "model": "m", "options": {}, "source": "yours",
    }  # fmt: skip
    assert by_name["deep_research"]["web_search"] is True
    assert by_name["deep_research"]["model"] == load_models()["default"]


def test_broken_file_of_presets_is_named(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "presets.toml"
    mine.write_text("[minutes")
    status, table, errors = run("presets", AGENT_JOBS_PRESETS=str(mine))
    assert (status, table) == (1, "")
    assert str(mine) in errors


TEXT = "words that continue below each other"


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (UNLIMITED, ["NAME       N  MORE  TEXT", f"long-name  1  2     {TEXT}", "short      3        b"]),
        (
            48,
            [
                "NAME       N  MORE  TEXT",
                "long-name  1  2     words that continue below",
                "                    each other",
                "short      3        b",
            ],
        ),
        (
            36,
            [
                "NAME       N  TEXT",
                "long-name  1  words that continue",
                "              below each other",
                "short      3  b",
            ],
        ),
    ],
)
def test_table_gives_its_last_column_the_rest_of_the_width(width: int, shown: list[str]) -> None:
    rows = [
        {"NAME": "long-name", "N": "1", "MORE": "2", "NONE": "", "TEXT": TEXT},
        {"NAME": "short", "N": "3", "MORE": "", "NONE": "", "TEXT": "b"},
    ]
    dispensable = ("MORE",) if width == 36 else ()
    assert list(render_table(rows, width, flexible="TEXT", figures=("N",), dispensable=dispensable)) == shown


def test_table_cuts_a_column_that_is_not_the_last() -> None:
    rows = [{"NAME": "n" * 50, "N": "1"}]
    assert list(render_table(rows, 30, flexible="NAME")) == ["NAME" + " " * 25 + "N", f"{'n' * 26}…  1"]
