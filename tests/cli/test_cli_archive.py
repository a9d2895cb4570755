"""Commands on existing jobs, run in this process: list, search, show, retry, stats, export and delete."""

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hosts import script_prompt

from agent_jobs.cli.display import terminal as terminal_format
from agent_jobs.cli.main import cli
from agent_jobs.emulator.server import RunningServer

MODEL = "emulated-priced"
PRICES = f'[models."{MODEL}"]\ninput = 10\ncache_write = 10\noutput = 1\n'
QUICK: dict[str, Any] = {"duration_s": 1, "text": "Perovskite cells reach 34 %.", "usage": {"input_tokens": 100_000}}
LONG: dict[str, Any] = {"duration_s": 6000}


@dataclass(frozen=True)
class Desk:
    """A terminal with a database and an upstream."""

    folder: Path
    upstream: RunningServer

    def type(self, *words: str, stdin: str = "", **environment: str) -> Result:
        """Run a command, and return its result. It must not crash."""
        settings = {
            "OPENAI_API_KEY": "sk-secret",
            "OPENAI_BASE_URL": self.upstream.base_url,
            "AGENT_JOBS_DATA_DIR": str(self.folder / "data"),
            "AGENT_JOBS_PRICES": str(self.folder / "prices.toml"),
            "AGENT_JOBS_MODEL": MODEL,
        }
        result = CliRunner().invoke(cli, list(words), input=stdin, env={**settings, **environment})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert "Traceback" not in result.output
        return result

    def read(self, *words: str) -> Any:
        return json.loads(self.type(*words, "--json").stdout)

    def jobs(self, *words: str) -> list[dict[str, Any]]:
        return self.read("list", *words)["jobs"]

    def run(self, prompt: str, script: dict[str, Any] = QUICK, *words: str) -> str:
        """Run a job to its end, and return its id."""
        before = {job["job_id"] for job in self.jobs()}
        ran = self.type("run", script_prompt(prompt, script), *words)
        assert ran.exit_code in (0, 3), ran.stderr
        [new] = {job["job_id"] for job in self.jobs()} - before
        return new

    def start(self, prompt: str, script: dict[str, Any] = LONG, *words: str) -> str:
        return self.type("start", script_prompt(prompt, script), *words).stdout.strip()

    def creates(self) -> int:
        return self.upstream.emulator.counters()["creates"]

    def write(self, sql: str) -> None:
        with closing(sqlite3.connect(self.folder / "data" / "jobs.db")) as db, db:
            db.execute(sql)


@pytest.fixture
def desk(upstream: RunningServer, tmp_path: Path) -> Desk:
    (tmp_path / "prices.toml").write_text(PRICES)
    return Desk(tmp_path, upstream)


def test_list_selects_sorts_and_describes_jobs(desk: Desk):
    first = desk.run("Compare solar panels", QUICK, "--preset", "quick")
    second = desk.start("A long one", LONG, "--model", "emulated-1")
    desk.write(f"UPDATE job SET delivered_at = NULL, read_at = NULL WHERE id = '{first}'")
    assert [job["job_id"] for job in desk.jobs()] == [second, first]
    assert [job["job_id"] for job in desk.jobs("--sort", "cost")] == [first, second]
    assert [job["job_id"] for job in desk.jobs("--model", "emulated-1")] == [second]
    assert [job["job_id"] for job in desk.jobs("--preset", "quick")] == [first]
    assert desk.jobs("--client", "cursor") == desk.jobs("--since", "today", "--status", "failed") == []
    assert len(desk.jobs("--client", "terminal", "--since", "2h")) == 2
    [row] = desk.jobs("--unread")
    assert (row["model"], row["preset"], row["client"], row["unread"]) == (MODEL, "quick", "terminal", True)
    shown = desk.type("list").stdout
    assert "● in_progress" in shown or "… queued" in shown
    assert "✓ completed" in shown
    assert "• Compare solar" in shown
    assert "1 unread (•)" in shown
    desk.type("result", first)
    assert "unread" not in desk.type("list").stdout


def test_list_says_why_a_job_was_not_sent(desk: Desk):
    desk.start("First")
    waiting = desk.type("start", "Second", AGENT_JOBS_MAX_CONCURRENT="1").stdout.strip()
    assert "Second (waiting for a free slot" in desk.type("list").stdout
    [row] = desk.jobs("--status", "pending")
    assert row["job_id"] == waiting
    assert row["reason"].startswith("waiting for a free slot")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_outside_the_encoding_of_stdout_are_replaced(desk: Desk, encoding: str):
    desk.run("東京 solar")
    ran = CliRunner(charset=encoding).invoke(
        cli, ["list"], env={"AGENT_JOBS_DATA_DIR": str(desk.folder / "data"), "OPENAI_API_KEY": ""}
    )
    assert ran.exit_code == 0
    assert "+ completed" in ran.stdout_bytes.decode(encoding)
    assert "?? solar" in ran.stdout_bytes.decode(encoding)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["list", "--since", "tomorrow"], "'tomorrow' is not a time. Write an age such as 90m, 12h, 2d or 1w"),
        (["list", "--since", "2026-13-01"], "is not a time"),
        (["list", "--since", ""], "is not a time"),
        (["list", "--since", "-2d"], "is not a time"),
        (["list", "--since", "2026-11-01T99"], "is not a time"),
        (["list", "--since", "2999-01-01"], "is in the future"),
        (["list", "--since", "2d", "--days", "2"], "Give --since or --days, not both."),
        (["watch", "last", "--all"], "Give IDs or --all, not both."),
        (["watch", "--stream", "--json"], "Give --stream or --json, not both."),
        (["start", "x", "--wait", "--detach"], "Give --wait or --detach, not both."),
        (["reply", "last", "--approve", "a", "--approve-all"], "Give --approve or --approve-all, not both."),
        (["list", "--sort", "price"], "'price' is not one of 'created', 'cost'"),
        (["list", "--status", "complete"], "Did you mean 'completed'?"),
        (["search"], "Missing argument 'WORDS...'"),
        (["search", ""], "Give at least one word with a letter or a digit."),
        (["search", "?!", '""'], "Give at least one word with a letter or a digit."),
        (["stats", "--by", "models"], "Did you mean 'model'?"),
        (["stats", "--days", "0"], "0 is not in the range"),
        (["export"], "Give IDs, --all or --since."),
        (["export", "--all", "--since", "1d"], "--all and --since cannot be combined. Give one of them."),
        (["export", "last", "--all"], "IDs and --all cannot be combined. Give one of them."),
        (["export", "last", "--since", "1d"], "IDs and --since cannot be combined. Give one of them."),
        (["export", "last", "--all", "--since", "1d"], "IDs, --all and --since cannot be combined. Give one of them."),
        (["cancel", "last", "--batch", "b"], "IDs and --batch cannot be combined. Give one of them."),
        (["cancel"], "Give IDs or --batch."),
        (["run"], "Give a prompt, or - to read it from stdin."),
        (["start", "--json"], "Give a prompt, or - to read it from stdin."),
        (["ask", "last"], "Give a prompt, or - to read it from stdin."),
        (["ask", "job_x", "--effort", "low"], "Give a prompt, or - to read it from stdin."),
        (["ask", "and why?"], "If this is the prompt: cli ask last 'and why?'"),
        (["ask", "why"], "If this is the prompt: cli ask last why"),
        (["export", "--all", "--out", ""], "--out needs a path"),
        (["result", "last", "-o", ""], "--out needs a path"),
        (["run", "x", "--out", ""], "--out needs a path"),
        (["ask", "last", "x", "--out", ""], "--out needs a path"),
        (["batch", __file__, "--out", ""], "--out needs a path"),
        (["batch", __file__, "--out", "-"], "--out needs a folder, and - is stdout."),
        (["export", "--all", "--format", "mardown"], "Did you mean 'markdown'?"),
        (["run", "x", "-c", "--previous", "job_1"], "Give --previous or --continue, not both."),
        (["delete"], "Missing argument 'ID...'"),
        (["retry"], "Missing argument 'ID'"),
    ],
)
def test_wrong_command_line_is_refused_with_the_right_form(desk: Desk, words: list[str], sentence: str):
    refused = desk.type(*words)
    assert refused.exit_code == 2
    assert sentence in " ".join(refused.stderr.split())
    assert refused.stdout == ""
    assert desk.creates() == 0


@pytest.mark.parametrize("command", ["show", "logs", "export", "delete", "retry", "ask"])
@pytest.mark.parametrize(("written", "text"), [("job_aeiou", "There is no job"), ("job_", "is ambiguous"), ("", "''")])
def test_unknown_or_ambiguous_id_is_refused(desk: Desk, command: str, written: str, text: str):
    desk.start("One")
    desk.start("Two")
    more = {"ask": ["And?"], "delete": ["--yes"]}.get(command, [])
    refused = desk.type(command, written, *more)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert text in refused.stderr
    assert "agent_" not in refused.stderr
    assert desk.creates() == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["list"], 'No jobs found. Start one with: agent-jobs run "..."'),
        (["list", "--model", "x"], "No jobs found with these options. The newest of all: agent-jobs list"),
        (["search", "solar"], "Nothing found for 'solar'. Try fewer words, or: agent-jobs list"),
        (["stats"], 'No jobs were started in the last 30 days. Start one with: agent-jobs run "..."'),
    ],
)
def test_empty_result_is_reported_with_a_next_step(desk: Desk, words: list[str], sentence: str):
    found = desk.type(*words)
    assert found.exit_code == 0
    assert sentence in found.stdout


def test_show_has_the_prompt_first_then_files_turns_steps_and_request(desk: Desk):
    (desk.folder / "notes & more.md").write_text("a note\n")
    prompt = "Compare solar panels\nand say which is best"
    job_id = desk.run(prompt, {**QUICK, "searches": 2}, "--web-search", "--file", str(desk.folder / "notes & more.md"))
    shown = desk.type("show", job_id).stdout
    assert shown.startswith("Prompt\n  Compare solar panels\n  and say which is best")
    headings = [line for line in shown.splitlines() if line and not line.startswith(" ")]
    assert headings == ["Prompt", "Files", "Job", "Turns", "Steps", "Events", "Request"]
    assert "text  notes & more.md" in shown
    assert "✓ completed" in shown
    answer = desk.read("show", job_id)
    assert answer["prompt"].startswith(prompt)
    assert [file["name"] for file in answer["files"]] == ["notes & more.md"]
    [turn] = answer["turns"]
    assert turn["response_id"] == answer["response_id"]
    assert turn["usage"]["input_tokens"] == 100_000
    kinds = [step["kind"] for step in answer["steps"]]
    assert kinds.count("web_search") == 2
    assert kinds[-1] == "message"
    assert "sk-secret" not in shown


def test_show_masks_secrets_and_cannot_be_steered(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AGENT_JOBS_SECRETS", "HUSH")
    monkeypatch.setenv("HUSH", "hush-hush")
    tool = {"type": "mcp", "server_label": "x", "server_url": "https://x.example/mcp?k=1", "authorization": "${HUSH}"}
    job_id = desk.run("a\x1b[2J\u202eb", QUICK, "--option", f"tools={json.dumps([tool])}")
    for words in (("show", job_id), ("show", job_id, "--json"), ("logs", job_id), ("export", job_id)):
        shown = desk.type(*words).stdout
        assert "hush-hush" not in shown
    assert "\x1b" not in desk.type("show", job_id).stdout


def test_logs_show_events_in_order(desk: Desk):
    job_id = desk.run("Compare", {**QUICK, "searches": 2}, "--web-search")
    moments = [json.loads(line) for line in desk.type("logs", job_id, "--json").stdout.splitlines()]
    assert [moment["at"] for moment in moments] == sorted(moment["at"] for moment in moments)
    kinds = [moment["kind"] for moment in moments]
    assert kinds[:2] == ["created", "sent"]
    assert kinds.count("step") >= 3
    assert moments[1]["detail"].startswith("resp_")
    assert [moment["what"] for moment in moments if moment["kind"] == "finished"] == ["completed"]
    [created, sent, *rest] = desk.type("logs", job_id).stdout.splitlines()[1:]
    assert "created by terminal" in created
    assert "resp_" in sent
    assert any("web search" in line for line in rest)


def test_logs_show_failures_and_times_without_an_observer(desk: Desk):
    job_id = desk.run("Compare", {"end": "failed", "error_message": "The model broke."})
    desk.write(f"UPDATE job SET created_at = 1000, finished_at = 1200 WHERE id = '{job_id}'")
    for at, kind in ((1030.0, "unwatched"), (1100.0, "watched"), (1150.0, "unwatched"), (1151.0, "watched")):
        desk.write(f"INSERT INTO event (job_id, at, kind) VALUES ('{job_id}', {at}, '{kind}')")
    moments = [json.loads(line) for line in desk.type("logs", job_id, "--json").stdout.splitlines()]
    [gap] = [moment for moment in moments if moment["kind"] == "gap"]
    assert (gap["at"], gap["took_s"]) == (1030.0, 70.0)
    shown = desk.type("logs", job_id).stdout
    assert re.search(r"\d\d:17:10 .*not watched.*1m10s|not watched \d\d:17:10 to \d\d:18:20", shown), shown
    assert "The model broke." in shown


def test_logs_show_each_of_two_equal_moments(desk: Desk):
    job_id = desk.run("Compare", QUICK)
    for _ in range(2):
        desk.write(f"INSERT INTO event (job_id, at, kind, text) VALUES ('{job_id}', 1030.0, 'rebuilt', 'again')")
    moments = [json.loads(line) for line in desk.type("logs", job_id, "--json").stdout.splitlines()]
    assert [moment["at"] for moment in moments].count(1030.0) == 2


def test_logs_follow_a_job_to_its_end(desk: Desk):
    job_id = desk.start("Compare", {"duration_s": 30, "text": "Done."})
    followed = desk.type("logs", job_id, "--follow")
    assert followed.exit_code == 0
    lines = followed.stdout.splitlines()
    assert len(lines) == len(set(lines)), "no line is repeated"
    assert "completed" in lines[-1]


def test_search_finds_prompts_and_answers_newest_first(desk: Desk):
    first = desk.run("Compare solar panels")
    second = desk.run("Compare wind turbines", {**QUICK, "end": "failed"})
    running = desk.start("Compare hydrogen tanks")
    assert [hit["job_id"] for hit in desk.read("search", "compare")["jobs"]] == [running, second, first]
    assert [hit["job_id"] for hit in desk.read("search", "compare", "-n", "1")["jobs"]] == [running]
    assert [hit["job_id"] for hit in desk.read("search", "comp", "--status", "failed")["jobs"]] == [second]
    [hit] = desk.read("search", "solar", "PEROV")["jobs"]
    assert hit["job_id"] == first
    assert hit["passage"][slice(*hit["matches"][0])].lower() in ("perovskite", "solar")
    [line] = desk.type("search", "solar panels").stdout.splitlines()
    assert line.startswith(first)
    assert not {"\x02", "\x03", "\x1b"} & set(line)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("## The majority\n\n- **Raft** [assumes](https://example.com/raft) it.", "The majority Raft assumes it."),
        ("> A *majority* of `servers`\n\n```sh\nrun\n```", "A majority of servers run"),
        ("| **majority** | 2 * 3 |\n|---|---|\n| snake_case | no |", "majority 2 * 3"),
        ("A majority\ue200cite\ue202turn0search1\ue201 is up.", "A majority is up."),
    ],
)
def test_search_shows_a_passage_without_markdown(desk: Desk, text: str, shown: str) -> None:
    desk.run(f"{text}\n")
    [line] = desk.type("search", "majority").stdout.splitlines()
    assert shown in line


def test_show_and_logs_state_each_fact_once_and_in_words(desk: Desk) -> None:
    job_id = desk.run("Compare")
    for kind in ("following", "unwatched", "watched", "polling"):
        desk.write(f"INSERT INTO event (job_id, at, kind) VALUES ('{job_id}', 1030.0, '{kind}')")
    shown = desk.type("show", job_id).stdout
    assert re.findall(r"  (following|unwatched|watched|polling)$", shown, re.MULTILINE) == []
    assert "not watched from here on" in shown
    kinds = [json.loads(line)["kind"] for line in desk.type("logs", job_id, "--json").stdout.splitlines()]
    assert [kind for kind in kinds if kind in ("delivered", "read")] == ["read"]


def test_ask_continues_a_job_like_run(desk: Desk, upstream: RunningServer):
    first = desk.run("Compare solar panels")
    asked = desk.type(
        "ask", first[:9], script_prompt("And which is cheapest?", {"text": "The second."}), "--effort", "low"
    )
    assert (asked.exit_code, asked.stdout) == (0, "The second.\n")
    job = desk.jobs()[-1] if desk.jobs()[-1]["job_id"] != first else desk.jobs()[0]
    assert job["previous_job_id"] == first
    assert job["effort"] == "low"
    still = desk.start("Long")
    refused = desk.type("ask", still, "And?")
    assert refused.exit_code == 1
    assert "agent-jobs watch" in refused.stderr


def test_run_continues_the_newest_finished_job_of_the_terminal(desk: Desk):
    nothing = desk.type("run", "And?", "-c")
    assert nothing.exit_code == 1
    assert "No job of the terminal has finished" in nothing.stderr
    first = desk.run("Compare solar panels")
    of_a_host = desk.run("Of a host")
    desk.write(f"UPDATE job SET client = 'Cursor' WHERE id = '{of_a_host}'")
    desk.start("Still running")
    continued = desk.type("run", "--continue", script_prompt("And?", QUICK))
    assert continued.exit_code == 0, continued.stderr
    assert f"Continuing {first}: Compare solar panels" in continued.stderr
    [job] = [job for job in desk.jobs() if job["title"].startswith("And?")]
    assert job["previous_job_id"] == first


def test_retry_sends_the_same_request_again(desk: Desk, upstream: RunningServer):
    (desk.folder / "notes.md").write_text("a note\n")
    options = ("--effort", "high", "--file", str(desk.folder / "notes.md"), "--option", "key=once", "--batch", "night")
    first = desk.run("Compare solar panels", QUICK, *options)
    (desk.folder / "notes.md").unlink()
    again = desk.type("retry", first)
    assert (again.exit_code, again.stdout) == (0, "Perovskite cells reach 34 %.\n")
    assert f"Repeating {first}: Compare solar panels" in again.stderr
    [second] = [job["job_id"] for job in desk.jobs() if job["job_id"] != first]
    one, two = desk.read("show", first), desk.read("show", second)
    same = ("prompt", "model", "effort", "files", "batch", "title")
    assert [one[name] for name in same] == [two[name] for name in same]
    assert {**one["request"], "metadata": 0} == {**two["request"], "metadata": 0}
    assert two["request"]["metadata"]["job_id"] == second
    assert desk.creates() == 2


def test_retry_says_that_the_job_before_was_deleted(desk: Desk):
    first = desk.run("Compare solar panels")
    desk.type("ask", first, script_prompt("And which is cheapest?", QUICK))
    [second] = [job["job_id"] for job in desk.jobs() if job["job_id"] != first]
    assert desk.type("delete", first, "--yes").exit_code == 0
    refused = desk.type("retry", second)
    assert refused.exit_code == 1
    assert f"{first} was deleted, so no job can continue it." in refused.stderr
    assert desk.creates() == 2


def test_retry_refuses_a_job_that_still_runs_unless_asked(desk: Desk):
    running = desk.start("Compare", {"duration_s": 30})
    refused = desk.type("retry", running)
    assert refused.exit_code == 1
    assert f"{running} has not finished" in refused.stderr
    assert "--new" in refused.stderr
    assert desk.creates() == 1
    assert desk.type("retry", running, "--new").exit_code == 0
    assert desk.creates() == 2


def test_retry_of_an_unconfirmed_start_warns_of_paying_twice(desk: Desk, upstream: RunningServer):
    upstream.queue_fault(on="create", status=500, after_accept=True)
    desk.type("run", script_prompt("Compare", QUICK))
    [job] = desk.jobs()
    refused = desk.type("retry", job["job_id"])
    assert (refused.exit_code, desk.creates()) == (1, 1)
    for words in ("may already be running", f"agent-jobs adopt {job['job_id']} RESPONSE_ID", "--new", "pay twice"):
        assert words in refused.stderr
    as_json = json.loads(desk.type("retry", job["job_id"], "--json").stdout)
    assert as_json["error"]["code"] == "bad_request"
    assert desk.type("retry", job["job_id"], "--new").exit_code == 0
    assert desk.creates() == 2


def test_stats_sum_up_jobs_and_show_the_budget(desk: Desk):
    desk.run("One")
    desk.run("Two", QUICK, "--model", "emulated-1", "--preset", "quick")
    answer = desk.read("stats", "--by", "model")
    rows = {row["model"]: row for row in answer["rows"]}
    assert rows[MODEL]["cost_usd"] > 1
    assert (rows[MODEL]["unpriced"], rows["emulated-1"]["unpriced"]) == (0, 1)
    assert answer["all"]["jobs"] == 2
    assert answer["today"] == {"usd": rows[MODEL]["cost_usd"], "budget_usd": None, "budget_mode": "bound"}
    shown = desk.type("stats", "--by", "model").stdout
    assert "1 unknown" in shown
    assert "no budget" in shown
    limited = desk.type("stats", AGENT_JOBS_DAILY_BUDGET_USD="2").stdout
    assert "of $2.00" in limited
    assert "█" in limited
    assert [row["preset"] for row in desk.read("stats", "--by", "preset")["rows"]] == ["", "quick"]
    assert [row["owner"] for row in desk.read("stats", "--by", "owner")["rows"]] == [""]
    assert desk.type("stats", "--by", "owner").stdout.splitlines()[2].split() == [
        "OWNER", "JOBS", "TOKENS", "IN", "TOKENS", "OUT", "COST",
    ]  # fmt: skip
    assert len(desk.read("stats")["rows"]) == 1
    desk.write("UPDATE job SET created_at = created_at - 3 * 86400")
    assert "No jobs were started in the last 2 days" in desk.type("stats", "--days", "2").stdout


def test_export_writes_prompt_answer_and_costs(desk: Desk):
    first = desk.run("Compare solar panels\n# not a heading")
    running = desk.start("Long")
    text = desk.type("export", first).stdout
    assert text.startswith('---\ntitle: "Compare solar panels"')
    assert "> # not a heading" in text
    assert "## Answer\n\nPerovskite cells reach 34 %." in text
    assert "cost_usd: " in text
    exported = json.loads(desk.type("export", "--all", "--format", "json").stdout)
    assert [job["job_id"] for job in exported] == [first, running]
    assert exported[0]["output"] == "Perovskite cells reach 34 %."
    folder = desk.folder / "out"
    written = desk.type("export", "--since", "1d", "--out", f"{folder}/")
    assert (written.exit_code, written.stdout) == (0, "")
    assert "Wrote 2 jobs" in written.stderr
    assert sorted(path.name[11:] for path in folder.iterdir()) == sorted([f"{first}.md", f"{running}.md"])
    assert desk.type("export", first, "-o", str(desk.folder / "one.md")).exit_code == 0
    assert (desk.folder / "one.md").read_text() == text
    assert desk.type("export", first, "-o", str(desk.folder / "no" / "one.md")).exit_code == 1


@pytest.mark.parametrize("words", [("result", "last", "-o"), ("export", "last", "-o"), ("export", "--all", "--out")])
def test_out_has_one_rule_for_all_commands(desk: Desk, words: tuple[str, ...]):
    desk.run("Compare solar panels")
    there, missing = desk.folder / "there.md", desk.folder / "no" / "one.md"
    there.write_text("mine")
    for out, message in (
        (there, f"{there} exists, so nothing was written. Use --force to overwrite it, or name another file."),
        (missing, f"The folder {missing.parent} does not exist, so nothing was written. Create it first."),
        (there / "one.md", f"The folder {there} does not exist, so nothing was written."),
        ("/dev/null", "/dev/null is not a file that can be replaced, so nothing was written."),
    ):
        refused = desk.type(*words, str(out))
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert message in refused.stderr
        assert ".tmp" not in refused.stderr
    assert (there.read_text(), missing.parent.exists()) == ("mine", False)
    shown = desk.type(*words, "-").stdout
    assert "Perovskite cells reach 34 %." in shown
    assert desk.type(*words, str(there), "--force").exit_code == 0
    assert there.read_text().rstrip() == shown.rstrip()


def test_run_prints_the_answer_if_out_is_stdout(desk: Desk):
    assert desk.type("run", script_prompt("Compare", QUICK), "--out", "-").stdout == f"{QUICK['text']}\n"


def test_export_makes_the_named_folder_only_and_overwrites_nothing_in_it(desk: Desk):
    first, second = desk.run("One"), desk.run("Two")
    folder = desk.folder / "out"
    assert desk.type("export", first, first, "-o", f"{folder}/").exit_code == 0
    [file] = folder.iterdir()
    file.write_text("mine")
    refused = desk.type("export", second, first, "-o", f"{folder}/")
    assert (refused.exit_code, f"{file} exists, so nothing was written." in refused.stderr) == (1, True)
    assert (list(folder.iterdir()), file.read_text()) == ([file], "mine"), "neither file may be overwritten"
    assert desk.type("export", second, first, "-o", f"{folder}/", "--force").exit_code == 0
    assert len(list(folder.iterdir())) == 2
    assert file.read_text() != "mine"
    for out, message in (
        (f"{desk.folder}/no/out/", f"The folder {desk.folder}/no does not exist, so nothing was written."),
        (f"{file}/", f"{file} is a file, so nothing was written. Name a folder."),
    ):
        refused = desk.type("export", first, "-o", out)
        assert (refused.exit_code, message in refused.stderr) == (1, True), refused.stderr
    assert not (desk.folder / "no").exists()


def test_delete_asks_and_leaves_a_tombstone(desk: Desk):
    first, second = desk.run("One"), desk.run("Two")
    left = desk.type("delete", first, stdin="n\n")
    assert left.exit_code == 1
    assert f"{first}  completed  One" in left.stderr
    assert len(desk.jobs()) == 2
    deleted = desk.type("delete", first, first[:9], stdin="y\n")
    assert deleted.stdout == "1 job was deleted. The provider keeps its copies (--upstream deletes them, too).\n"
    assert [job["job_id"] for job in desk.jobs()] == [second]
    assert f"{first} finished (completed, today) and was deleted here. If" in desk.type("show", first).stderr
    assert desk.type("search", "One").stdout.startswith("Nothing found")
    upstream = desk.type("delete", second, "--yes", "--upstream")
    assert upstream.stdout == "1 job was deleted. 1 of 1 responses were deleted at the provider.\n"


def test_cancel_of_a_finished_job_says_that_there_was_nothing_to_cancel(desk: Desk):
    done, failed, running = desk.run("Done"), desk.run("Failed", {"end": "failed"}), desk.start("Long")
    one = desk.type("cancel", done)
    assert (one.exit_code, one.stdout) == (0, f"{done}  completed\n")
    assert f"There was nothing to cancel: {done} had already finished." in one.stderr
    several = desk.type("cancel", done, running, failed)
    assert f"There was nothing to cancel: {done}, {failed} had already finished." in several.stderr
    assert f"{running}  cancelled" in several.stdout
    assert json.loads(desk.type("cancel", done, "--json").stdout) == {done: "completed"}


def test_delete_cancels_a_running_job_first(desk: Desk):
    running = desk.start("Long")
    answer = desk.read("delete", running, "--yes")
    assert answer == {"deleted": 1, "cancelled": [running], "still_running": [], "deleted_upstream": 0}
    assert desk.jobs() == []
    assert desk.upstream.emulator.counters()["cancels"] == 1


@pytest.mark.parametrize("command", [("list",), ("search", "towns")], ids=["list", "search"])
def test_quiet_prints_the_ids_alone(desk: Desk, command: tuple[str, ...]):
    assert desk.type(*command, "-q").stdout == ""
    jobs = [desk.run(f"Weather of {name} towns", {**QUICK, "text": name}) for name in ("two", "three")]
    quiet = desk.type(*command, "--quiet")
    assert (quiet.exit_code, quiet.stdout.split()) == (0, jobs[::-1])
    assert desk.type(*command, "-q", "-n", "1").stdout == f"{jobs[1]}\n"
    both = desk.type(*command, "-q", "--json")
    assert (both.exit_code, "Give --quiet or --json, not both." in both.stderr) == (2, True)


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_no_command_is_wider_than_the_terminal(desk: Desk, columns: int, monkeypatch: pytest.MonkeyPatch):
    wide = "東京の天気 and the weather of several other towns, compared in many words " * 3
    job_id = desk.run(wide, {**QUICK, "text": wide, "searches": 2}, "--web-search")
    desk.start("First")
    desk.type("start", f"Second {wide}", AGENT_JOBS_MAX_CONCURRENT="1")
    find_width: Callable[[], int] = lambda: columns  # noqa: E731
    monkeypatch.setattr(terminal_format, "find_width", find_width)
    for words in (
        ["list"],
        ["show", job_id],
        ["logs", job_id],
        ["search", "towns"],
        ["stats"],
        ["stats", "--by", "model"],
    ):
        for line in desk.type(*words).stdout.splitlines():
            if "resp_" not in line:  # an id stays whole, so that it can be copied
                assert terminal_format.count_columns(line) <= columns, (words, line)
