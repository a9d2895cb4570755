"""Jobs are started, found, read and stopped from the terminal, in the database that the server uses too."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fork_server import COMMAND, Process, run
from hosts import script_prompt
from machine import forking
from processes import serving
from terminals import KEY, Terminal

from agent_jobs.emulator.server import RunningServer, run_emulator

WORK = "Compare three caches"
LONG = {"duration_s": 300}


@pytest.fixture
def terminal(upstream: RunningServer, tmp_path: Path) -> Terminal:
    return Terminal(upstream.base_url, tmp_path / "data")


def list_jobs(terminal: Terminal, *arguments: str) -> list[dict[str, Any]]:
    return json.loads(terminal.pipe("list", "--json", *arguments).stdout)["jobs"]


def test_run_prints_the_answer_and_nothing_else_on_stdout(terminal: Terminal):
    ran = terminal.pipe("run", script_prompt(WORK, {"text": "Take the second.\n", "searches": 2}), "--web-search")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "Take the second.\n"
    assert "completed" in ran.stderr


def test_run_reads_a_prompt_from_stdin_and_options_by_name(terminal: Terminal, upstream: RunningServer):
    ran = terminal.pipe(
        "run", "-", "--model", "emulated-1", "--effort", "low", "--option", "max_output_tokens=500",
        "--option", "verbosity=low", "--json", stdin=script_prompt("From a pipe", {"text": "Yes."}),
    )  # fmt: skip
    answer = json.loads(ran.stdout)
    assert answer["status"] == "completed"
    assert answer["output"] == "Yes."
    [job] = list_jobs(terminal)
    request = json.loads(terminal.pipe("show", job["job_id"], "--json").stdout)["request"]
    assert request["max_output_tokens"] == 500
    assert request["text"] == {"verbosity": "low"}
    assert request["model"] == "emulated-1"


@pytest.mark.parametrize(
    ("script", "status"), [({"end": "failed"}, 3), ({"end": "incomplete"}, 4), ({"end": "completed"}, 0)]
)
def test_exit_status_shows_how_the_job_ended(terminal: Terminal, script: dict[str, Any], status: int):
    assert terminal.pipe("run", script_prompt(WORK, script)).returncode == status
    [job] = list_jobs(terminal)
    assert terminal.pipe("result", job["job_id"]).returncode == status
    assert terminal.pipe("watch", job["job_id"]).returncode == status


def test_refused_command_starts_nothing_and_names_the_fix(terminal: Terminal):
    refused = terminal.pipe("run", WORK, "--option", "max_tokens=5")
    assert refused.returncode == 1
    assert "max_output_tokens" in refused.stderr
    assert refused.stdout == ""
    answer = json.loads(terminal.pipe("run", WORK, "--preset", "deep", "--json").stdout)
    assert answer["error"]["code"] == "bad_request"
    assert terminal.pipe("run", WORK, "--option", "verbosity").returncode == 2
    assert list_jobs(terminal) == []


def test_dry_run_prints_the_cost_and_starts_nothing(terminal: Terminal):
    answer = json.loads(terminal.pipe("run", WORK, "--option", "dry_run=true").stdout)
    assert answer["dry_run"] is True
    assert list_jobs(terminal) == []


@pytest.mark.parametrize("command", ["run", "start"])
@pytest.mark.parametrize("asked", [["--dry-run"], ["--option", "dry_run=true"]])
def test_dry_run_is_in_words_on_a_terminal_and_json_where_it_is_asked_for(
    terminal: Terminal, command: str, asked: list[str]
) -> None:
    shown = terminal.show(command, WORK, *asked)
    assert (shown.returncode, "Dry run: nothing was sent." in shown.text, "{" in shown.text) == (0, True, False)
    assert json.loads(terminal.pipe(command, WORK, *asked, "--json").stdout)["dry_run"]


def test_file_that_the_command_line_names_may_be_read(terminal: Terminal):
    (terminal.folder.parent / "notes.txt").write_text("a note")
    ran = terminal.pipe("run", WORK, "--file", "notes.txt")
    assert ran.returncode == 0, ran.stderr
    [job] = list_jobs(terminal)
    request = json.loads(terminal.pipe("show", job["job_id"], "--json").stdout)["request"]
    assert len(request["input"][0]["content"]) == 2


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with forking(tmp_path_factory.mktemp("shell")) as command:
        yield command


def test_prompt_outside_utf_8_and_unknown_home_are_refused_before_anything_is_sent(
    terminal: Terminal, forked: str, upstream: RunningServer
):
    for line, message in (
        ("printf 'caf\\351' | {} run -", "stdin is not UTF-8"),
        ("{} run x --file '~no-such-person/x'", "home"),
    ):
        refused = shell(terminal, forked, line)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
    assert upstream.emulator.counters()["creates"] == 0


def shell(terminal: Terminal, forked: str, line: str, **inherited: Any) -> "subprocess.CompletedProcess[str]":
    """Run a line of a shell, in which {} is the command. If stdin is closed, {} is a new interpreter."""
    program = " ".join(COMMAND) if "<&-" in line else forked
    command = ["sh", "-c", line.format(program)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=terminal.environment(),
        cwd=terminal.folder.parent, **inherited,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ("printf 'the file\\n' | {} run 'Summarise this'", "Summarise this\n\nthe file\n"),
        ("printf '\\357\\273\\277the file\\r\\n' | {} start 'Summarise this'", "Summarise this\n\nthe file\n"),
        ("printf 'the file' > f; {} run 'Summarise this' < f", "Summarise this\n\nthe file"),
        ("(sleep 1; printf 'the '; sleep 1; printf file) | {} run x", "x\n\nthe file"),
        ("printf 'the file' | {} run -", "the file"),
        ("printf ' \\n' | {} run x", "x"),
        ("{} run x < /dev/null", "x"),
        ("{} run x <&-", "x"),
        ("{} start x <&-", "x"),
        ("{} run x", "x"),
    ],
)
def test_piped_text_is_appended_to_the_prompt(
    terminal: Terminal, forked: str, upstream: RunningServer, line: str, prompt: str
):
    reading, writing = os.pipe()  # the command inherits this pipe, and no process writes to it
    try:
        ran = shell(terminal, forked, line, stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert ran.returncode == 0, ran.stderr
    assert ("Nothing came from stdin" in ran.stderr) == (line == "{} run x")
    [job] = list_jobs(terminal)
    [run] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
    assert run["metadata"]["job_id"] == job["job_id"]
    items = httpx2.get(
        f"{upstream.base_url}/responses/{run['id']}/input_items", headers={"Authorization": f"Bearer {KEY}"}
    ).json()
    assert [part["text"] for item in items["data"] for part in item["content"]] == [prompt]


@pytest.mark.parametrize("line", ["printf 'caf\\351' | {} run x", "printf 'caf\\351' | {} start x"])
def test_stdin_that_cannot_be_read_is_refused_before_anything_is_sent(
    terminal: Terminal, forked: str, upstream: RunningServer, line: str
):
    refused = shell(terminal, forked, line)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "stdin is" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert upstream.emulator.counters()["creates"] == 0


def test_file_may_be_named_from_this_folder_and_an_empty_name_is_not_this_folder(terminal: Terminal):
    below, beside = terminal.folder.parent / "below", terminal.folder.parent / "beside.md"
    below.mkdir()
    beside.write_text("What stands beside.")
    command = [*COMMAND, "run", WORK, "--option", "dry_run=true", "--file"]

    def run_with_file(file: str) -> "subprocess.CompletedProcess[str]":
        return run([*command, file], cwd=below, env=terminal.environment())

    assert json.loads(run_with_file("../beside.md").stdout)["dry_run"]
    assert run_with_file("").returncode == 2
    assert "holds nothing that can be attached" in run_with_file(".").stderr


def test_secret_is_not_sent_even_if_it_is_named(terminal: Terminal):
    (terminal.folder.parent / ".env").write_text("KEY=1")
    assert terminal.pipe("run", WORK, "--file", ".env").returncode == 1


def test_host_and_terminal_see_the_same_jobs(terminal: Terminal, upstream: RunningServer):
    with serving(terminal.folder, upstream.base_url) as server:
        server.initialize()
        theirs = server.call("agent_start", prompt=script_prompt("From the host", LONG), wait_s=0)["job_id"]
        started = terminal.pipe("start", script_prompt("From the terminal", LONG))
        assert started.returncode == 0
        ours = started.stdout.strip()
        assert f"Watched by agent-jobs server (pid {server.process.pid})" in started.stderr
        assert {row["job_id"] for row in server.call("agent_list")["jobs"]} == {ours, theirs}
        cancelled = terminal.pipe("cancel", theirs, ours[:10])
        assert cancelled.returncode == 0
        assert cancelled.stdout.splitlines() == [f"{theirs}  cancelled", f"{ours}  cancelled"]
        assert server.call("agent_poll", job_id=theirs)["status"] == "cancelled"


def test_start_says_who_watches_in_json_too(terminal: Terminal, upstream: RunningServer):
    with serving(terminal.folder, upstream.base_url) as server:
        server.initialize()
        server.call("agent_list")
        answer = json.loads(terminal.pipe("start", script_prompt(WORK, LONG), "--json").stdout)
        assert answer["watched_by"] == [{"what": "server", "pid": server.process.pid}]


def test_server_of_another_endpoint_watches_no_job_of_this_one(terminal: Terminal):
    with run_emulator() as elsewhere, serving(terminal.folder, elsewhere.base_url) as server:
        server.initialize()
        server.call("agent_list")
        started = terminal.pipe("start", "--wait", WORK)
        assert "Waiting until it finishes" in started.stderr
        assert started.returncode == 0
        left = terminal.pipe("start", script_prompt("Other work", LONG))
        assert (
            "No process is watching it. Install the service, or watch here:\n  agent-jobs service install"
            in left.stderr
        )
        assert "\n  agent-jobs watch job_" in left.stderr
        assert left.returncode == 0
    assert {row["title"][:10]: row["status"] for row in list_jobs(terminal)}[WORK[:10]] == "completed"


def test_start_detached_leaves_once_upstream_named_the_response(terminal: Terminal, upstream: RunningServer):
    started = terminal.pipe(
        "start", "--detach", script_prompt(WORK, {**LONG, "faults": [{"on": "create", "delay_created_s": 60}]})
    )
    job_id = started.stdout.strip()
    shown = json.loads(terminal.pipe("show", job_id, "--json").stdout)
    assert shown["response_id"].startswith("resp_")
    assert shown["status"] in ("queued", "in_progress")
    assert upstream.emulator.counters()["creates"] == 1


#: Answers by which an endpoint shows that it does not support background runs.
FOREGROUND: dict[str, list[dict[str, Any]]] = {
    "ignored": [{"ignore_background": True}],
    "not confirmed": [{"background_unsaid": True}, {"on": "any", "no_retrieve": True}],
}


@pytest.mark.parametrize("why", ["set", "ignored", "not confirmed", "watched"])
def test_start_does_not_leave_a_run_that_would_end_with_it(terminal: Terminal, upstream: RunningServer, why: str):
    script = {"duration_s": 30, "text": "Held.", "faults": FOREGROUND.get(why, [])}
    setting = {} if why in FOREGROUND else {"AGENT_JOBS_MODE": "foreground"}
    with serving(terminal.folder, upstream.base_url) if why == "watched" else nullcontext() as server:
        if server is not None:
            server.initialize()
            server.call("agent_list")
        started = terminal.pipe("start", *["--detach"] * (why != "watched"), script_prompt(WORK, script), **setting)
    assert started.returncode == 0, started.stderr
    assert "This endpoint does not support background mode" in started.stderr
    assert "Watched by" not in started.stderr
    assert terminal.pipe("result", started.stdout.strip()).stdout == "Held.\n"


def test_start_exits_while_another_process_holds_the_run_open(terminal: Terminal, upstream: RunningServer):
    with serving(terminal.folder, upstream.base_url, AGENT_JOBS_MODE="foreground") as server:
        server.initialize()
        theirs = server.call("agent_start", prompt=script_prompt(WORK, LONG), wait_s=0)["job_id"]
        again = terminal.pipe("start", script_prompt(WORK, LONG))
        assert (again.returncode, again.stdout) == (0, f"{theirs}\n")
        assert f"Watched by agent-jobs server (pid {server.process.pid})" in again.stderr
        [job] = list_jobs(terminal)
        assert job["status"] == "in_progress"


def test_same_work_is_not_started_twice(terminal: Terminal, upstream: RunningServer):
    first = terminal.pipe("start", "--detach", script_prompt(WORK, LONG)).stdout
    again = terminal.pipe("start", "--detach", script_prompt(WORK, LONG))
    assert again.stdout == first
    assert "already" in again.stderr
    assert upstream.emulator.counters()["creates"] == 1


def test_id_may_be_written_by_its_beginning(terminal: Terminal):
    terminal.pipe("run", WORK)
    [job] = list_jobs(terminal)
    for written in (job["job_id"], job["job_id"][:9], job["job_id"].removeprefix("job_")[:5]):
        assert json.loads(terminal.pipe("show", written, "--json").stdout)["title"] == WORK


def test_ambiguous_prefix_lists_its_jobs_and_an_unknown_one_the_newest(terminal: Terminal):
    for number in range(2):
        terminal.pipe("run", f"{WORK} {number}")
    ids = sorted(row["job_id"] for row in list_jobs(terminal))
    several = terminal.pipe("result", "job_")
    assert several.returncode == 1
    assert ", ".join(ids) in several.stderr
    unknown = terminal.pipe("show", "job_aeiou")
    assert unknown.returncode == 1
    assert all(job_id in unknown.stderr for job_id in ids)


def test_empty_variable_of_a_shell_names_no_job(terminal: Terminal):
    terminal.pipe("run", WORK)
    refused = terminal.pipe("cancel", "")
    assert refused.returncode == 1
    assert "There is no job ''. The newest are job_" in refused.stderr


def test_refusal_names_commands_and_not_the_tools_of_a_model(terminal: Terminal):
    assert terminal.pipe("show", "none").stderr.endswith("There are no jobs yet; start one with: agent-jobs run\n")
    running = terminal.pipe("start", "--detach", script_prompt(WORK, LONG)).stdout.strip()
    sentences = f"{running} is still running. Watch it with: agent-jobs watch {running}"
    assert sentences in terminal.pipe("run", "More", "--previous", running).stderr
    as_json = json.loads(terminal.pipe("run", "More", "--previous", running, "--json").stdout)
    assert as_json["error"]["message"] == sentences


def test_batch_that_runs_nothing_is_reported(terminal: Terminal):
    cancelled = terminal.pipe("cancel", "--batch", "nihgt")
    assert (cancelled.returncode, cancelled.stdout) == (0, "")
    assert cancelled.stderr == "No jobs of batch 'nihgt' are running.\n"


def test_start_reports_a_job_that_has_finished(terminal: Terminal):
    stayed = terminal.pipe("start", "--wait", script_prompt(WORK, {"end": "failed"}))
    assert stayed.returncode == 3
    [job] = list_jobs(terminal)
    assert stayed.stdout == f"{job['job_id']}\n"
    assert f"{job['job_id']}  failed" in stayed.stderr
    refused = terminal.pipe("start", "--detach", "Other work", OPENAI_API_KEY="invalid")
    assert refused.returncode == 3
    assert "invalid_api_key: " in refused.stderr


def test_path_that_cannot_be_written_and_a_full_disk_are_reported_in_a_sentence(terminal: Terminal):
    terminal.pipe("run", WORK)
    [job] = list_jobs(terminal)
    path = str(terminal.folder / "nowhere" / "result.md")
    refused = terminal.pipe("result", job["job_id"], "--out", path)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"Error: The folder {terminal.folder / 'nowhere'} does not exist, so nothing was written. Create it first.\n"
    )
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            ran = run([*COMMAND, "list"], stdout=full, env=terminal.environment())
        assert ran.returncode == 7
        assert ran.stderr.startswith("Error: The output cannot be written (No space left on device). Send it elsewhere")


def test_root_folder_can_be_named_and_is_refused_in_a_sentence(terminal: Terminal):
    refused = terminal.pipe("run", WORK, "--file", "/")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: ")


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of a shell")
def test_standard_streams_may_be_closed(terminal: Terminal):
    def shell(line: str) -> "subprocess.CompletedProcess[str]":
        python = shlex.quote(sys.executable)
        return subprocess.run(
            ["sh", "-c", f"{python} -m agent_jobs {line}"], capture_output=True, text=True, check=False, timeout=60,
            env=terminal.environment(),
        )  # fmt: skip

    assert "prompt is empty" in shell("run - <&-").stderr
    assert (shell("list >&-").returncode, shell("list 2>&-").returncode) == (7, 0)
    closed = shell("<&-")
    assert (closed.returncode, closed.stderr) == (0, "")


def test_result_that_does_not_exist_yet_is_reported_by_the_status(terminal: Terminal):
    job_id = terminal.pipe("start", "--detach", script_prompt(WORK, LONG)).stdout.strip()
    early = terminal.pipe("result", job_id)
    assert early.returncode == 6
    assert early.stdout == ""
    assert f"agent-jobs watch {job_id}" in early.stderr
    in_json = terminal.pipe("result", job_id, "--json")
    assert (in_json.returncode, json.loads(in_json.stdout)["job_id"]) == (6, job_id)


def test_result_goes_into_a_file_or_a_pipe_byte_for_byte(terminal: Terminal):
    text = "# Ünï\n\x1b[31m" + "x" * 90_000 + " end"
    terminal.pipe("run", script_prompt(WORK, {"text": text}))
    [job] = list_jobs(terminal)
    assert terminal.pipe("result", job["job_id"]).stdout == text + "\n"
    out = terminal.folder.parent / "answer.md"
    assert terminal.pipe("result", job["job_id"], "--out", str(out)).stdout == ""
    assert out.read_text() == text
    assert terminal.pipe("result", job["job_id"], "--part", "outline").stdout == "Ünï\n"
    outline = json.loads(terminal.pipe("result", job["job_id"], "--part", "outline", "--json").stdout)
    assert "Ünï" in json.dumps(outline, ensure_ascii=False)


def test_model_cannot_steer_the_terminal(terminal: Terminal):
    terminal.pipe("run", script_prompt("\x1b]0;title\x07 Steer \u202eback", {"text": "a\x1b[2Jb\x07\tc\n"}))
    [job] = list_jobs(terminal)
    shown = terminal.show("result", job["job_id"])
    assert "\x1b" not in shown.raw
    assert re.search(r"a\[2Jb +c", shown.raw)
    rows = terminal.show("list").raw
    assert "\x1b]" not in rows
    assert "\u202e" not in rows
    shown = terminal.show("show", job["job_id"]).raw
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown
    assert "\x1b" not in terminal.show("show", job["job_id"], NO_COLOR="1").raw


def test_follow_up_is_below_the_job_that_it_continues(terminal: Terminal):
    terminal.pipe("run", "The first question")
    [first] = list_jobs(terminal)
    terminal.pipe("run", "And the second", "--previous", first["job_id"][:10])
    terminal.pipe("run", "Something else")
    head, *rows = terminal.pipe("list").stdout.splitlines()[:4]
    assert [row[head.index("TITLE") :] for row in rows] == ["Something else", "The first question", "└ And the second"]
    newest = next(row for row in list_jobs(terminal) if row["title"] == "And the second")
    assert newest["previous_job_id"] == first["job_id"]
    assert newest["tokens"] > 0


def test_lost_response_is_adopted_and_collected(terminal: Terminal, upstream: RunningServer):
    fault = {"on": "create", "status": 500, "after_accept": True}
    httpx2.post(f"{upstream.url}/_emulator/faults", json=fault).raise_for_status()
    ran = terminal.pipe("run", WORK)
    assert ran.returncode == 3
    assert "start_unconfirmed" in ran.stderr
    [job] = list_jobs(terminal)
    assert f"metadata has job_id={job['job_id']} in the provider's dashboard" in ran.stderr
    assert f"agent-jobs adopt {job['job_id']} RESPONSE_ID" in ran.stderr
    assert "RESPONSE_ID" in terminal.pipe("result", job["job_id"]).stderr
    watched = terminal.pipe("watch", job["job_id"]).stderr
    assert "RESPONSE_ID" in watched
    assert "Print the result with" not in watched
    [response] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
    for mistyped in (response["id"][:-1], ""):
        assert "The provider knows no response" in terminal.pipe("adopt", job["job_id"], mistyped).stderr
    miss = {"on": "retrieve", "status": 404}
    httpx2.post(f"{upstream.url}/_emulator/faults", json=miss).raise_for_status()
    assert "repeat this" in terminal.pipe("adopt", job["job_id"], response["id"]).stderr
    adopted = terminal.pipe("adopt", job["job_id"], response["id"])
    assert adopted.returncode == 0, adopted.stderr
    assert "agent-jobs watch" in adopted.stderr
    assert terminal.pipe("watch", job["job_id"]).returncode == 0
    assert terminal.pipe("result", job["job_id"]).stdout


def test_prune_asks_and_leaves_the_providers_copy(terminal: Terminal, upstream: RunningServer):
    terminal.pipe("run", WORK)
    for number in ("nan", "-1", "many"):
        assert terminal.pipe("prune", "--days", number, "--yes").returncode == 2
    unset = terminal.pipe("prune", "--yes")
    assert unset.returncode == 2
    assert "--days" in unset.stderr
    assert terminal.pipe("prune", "--days", "0", stdin="n\n").returncode == 1
    assert len(list_jobs(terminal)) == 1
    assert terminal.pipe("prune", "--days", "1", "--yes").stdout == "0 jobs were deleted.\n"
    pruned = terminal.pipe("prune", "--days", "0", "--yes", OPENAI_API_KEY="")
    assert pruned.stdout == "1 job was deleted. The provider keeps its copies (--upstream deletes them, too).\n"
    assert list_jobs(terminal) == []
    assert upstream.emulator.counters()["deletes"] == 0


@pytest.mark.parametrize(
    ("arguments", "environment", "deleted"),
    [
        (["--days", "0", "--upstream"], {}, 1),
        (["--days", "0"], {"AGENT_JOBS_DELETE_UPSTREAM": "yes"}, 1),
        (["--days", "0", "--no-upstream"], {"AGENT_JOBS_DELETE_UPSTREAM": "yes"}, 0),
    ],
)
def test_prune_deletes_at_the_provider_if_the_user_chose_that(
    terminal: Terminal, upstream: RunningServer, arguments: list[str], environment: dict[str, str], deleted: int
):
    terminal.pipe("run", WORK)
    pruned = terminal.pipe("prune", *arguments, "--yes", "--json", **environment)
    assert json.loads(pruned.stdout) == {"forgotten": 1, "kept_unread": 0, "deleted_upstream": deleted}
    assert upstream.emulator.counters()["deletes"] == deleted


def test_prune_says_that_the_provider_did_not_delete(terminal: Terminal, upstream: RunningServer):
    terminal.pipe("run", WORK)
    upstream.queue_fault(on="delete", status=403)
    output = terminal.pipe("prune", "--days", "0", "--yes", "--upstream").stdout
    assert output == "1 job was deleted. 0 of 1 responses were deleted at the provider.\n"


@pytest.mark.parametrize("end", ["completed", "failed", "incomplete"])
@pytest.mark.parametrize("reading", [("result",), ("result", "--json"), ("result", "--part", "sources")])
def test_prune_keeps_a_result_until_it_was_read(
    terminal: Terminal, upstream: RunningServer, reading: tuple[str, ...], end: str
):
    terminal.pipe("start", "--wait", script_prompt(WORK, {"text": "Paid for.", "end": end}))
    [job] = list_jobs(terminal)
    for unread in ("show", "watch"):  # neither shows the text
        terminal.pipe(unread, job["job_id"])
    terminal.pipe("result", job["job_id"], "--part", "meta")
    kept = terminal.pipe("prune", "--days", "0", "--yes", "--upstream").stdout
    assert kept == "0 jobs were deleted. 1 was kept because its result is unread (--unread deletes it).\n"
    assert terminal.pipe(reading[0], job["job_id"], *reading[1:]).stdout
    answer = json.loads(terminal.pipe("prune", "--days", "0", "--yes", "--json").stdout)
    assert (answer["forgotten"], answer["kept_unread"]) == (1, 0)
    assert upstream.emulator.counters()["deletes"] == 0


def test_prune_deletes_unread_results_with_the_unread_flag(terminal: Terminal):
    terminal.pipe("start", "--wait", WORK)
    output = terminal.pipe("prune", "--days", "0", "--yes", "--unread").stdout
    assert output.startswith("1 job was deleted.")
    assert list_jobs(terminal) == []


def test_result_that_could_not_be_written_stays_unread(terminal: Terminal):
    terminal.pipe("start", "--wait", WORK)
    [job] = list_jobs(terminal)
    assert terminal.pipe("result", job["job_id"], "--out", "no/such/folder/x").returncode != 0
    assert json.loads(terminal.pipe("prune", "--days", "0", "--yes", "--json").stdout)["kept_unread"] == 1


@pytest.mark.parametrize("columns", [80, 160])
def test_list_fits_the_terminal(terminal: Terminal, columns: int):
    terminal.pipe("run", "A title that is longer than eighty columns leave room for, 東京 too")
    shown = terminal.show("list", columns=columns)
    assert shown.returncode == 0
    assert shown.width <= columns
    assert shown.colours
    assert ("…" in shown.text) == (columns == 80)


def test_colours_are_printed_only_on_terminals_that_allow_them(terminal: Terminal):
    terminal.pipe("run", WORK)
    assert not terminal.show("list", NO_COLOR="1").colours
    assert not terminal.show("list", TERM="dumb").colours
    assert "\x1b" not in terminal.pipe("list").stdout


def test_reading_commands_import_neither_the_wire_nor_the_protocol(terminal: Terminal):
    terminal.pipe("start", script_prompt(WORK, LONG))
    # No process watches the job, and this terminal cannot retrieve it.
    traced = terminal.pipe("list", PYTHONPROFILEIMPORTTIME="1", OPENAI_BASE_URL="http://elsewhere.invalid/v1")
    assert "not being watched" in traced.stdout
    imported = {line.rpartition("|")[2].strip() for line in traced.stderr.splitlines()}
    assert "aiosqlite" in imported
    assert not imported & {"mcp", "mcp_types", "httpx2", "pydantic", "rich", "starlette", "genai_prices"}


def test_invalid_setting_prints_nothing_into_a_completion(terminal: Terminal):
    terminal.pipe("run", WORK)
    asked = {"COMP_WORDS": "agent-jobs show job", "COMP_CWORD": "2", "_AGENT_JOBS_COMPLETE": "bash_complete"}
    shown = terminal.pipe(**asked, AGENT_JOBS_LOGLEVEL="debug", AGENT_JOBS_FOLLOW="all")
    assert shown.stdout.startswith("plain,job_")
    assert shown.stderr == ""


def test_shell_completes_ids_with_titles(terminal: Terminal):
    terminal.pipe("run", WORK)
    [job] = list_jobs(terminal)
    assert "_AGENT_JOBS_COMPLETE" in terminal.pipe("completion", "bash").stdout
    asked = {"_AGENT_JOBS_COMPLETE": "zsh_complete", "COMP_WORDS": "agent-jobs show ", "COMP_CWORD": "2"}
    assert terminal.pipe(**asked).stdout.splitlines() == ["plain", job["job_id"], WORK]


def test_serve_runs_the_server(terminal: Terminal):
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    with Process(
        [*COMMAND, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=terminal.environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "agent-jobs"
        process.stdin.close()
        assert process.wait(60) == 0


FUNCTION: dict[str, Any] = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}
SHOP: dict[str, Any] = {"type": "mcp", "server_label": "shop", "server_url": "https://shop.example/mcp"}
BUY = {"server_label": "shop", "name": "buy", "arguments": '{"what": "a boat"}'}


def start_asking_job(terminal: Terminal, tool: dict[str, Any], **emulate: Any) -> tuple[str, list[dict[str, Any]]]:
    """Start a job that waits for an answer, and return its id and its calls."""
    prompt = script_prompt(WORK, {"duration_s": 0.2, **emulate})
    ran = terminal.pipe("run", prompt, "--option", f"tools={json.dumps([tool])}")
    assert ran.returncode == 6, ran.stderr
    [job] = list_jobs(terminal, "--status", "input_required")
    asked = terminal.pipe("reply", job["job_id"], "--json")
    assert asked.returncode == 6
    return job["job_id"], json.loads(asked.stdout)["needs"]


@pytest.mark.parametrize("answer", ["--approve-all", "--approve", "--deny"])
def test_person_decides_in_the_terminal_and_the_job_continues(terminal: Terminal, answer: str):
    job_id, [call] = start_asking_job(terminal, SHOP, mcp_approval=BUY)
    assert (call["needs"], call["name"], call["arguments"]) == ("approval", "shop/buy", BUY["arguments"])
    unanswered = terminal.pipe("reply", job_id)
    assert f"buy {BUY['arguments']}" in unanswered.stdout
    for option in ("--approve", "--deny"):
        assert f"  agent-jobs reply {job_id} {option} {call['call_id']}\n" in unanswered.stderr
    replied = terminal.pipe("reply", job_id[:12], answer, *([] if answer == "--approve-all" else [call["call_id"]]))
    assert replied.returncode == 0, replied.stderr
    assert f"agent-jobs watch {job_id}" in replied.stderr
    assert terminal.pipe("watch", job_id).returncode == 0


@pytest.mark.parametrize(
    ("command", "status", "advice"),
    [
        (["reply", "last"], 0, "It asks for nothing: JOB is completed. See it with: agent-jobs result JOB"),
        (["delete", "last"], 1, "Add --yes to agree."),
        (["prune", "--days", "3"], 1, "Add --yes to agree."),
        (["show"], 2, "Give the id of a job or its beginning, or `last` for the newest one."),
        (["uninstall"], 2, "Choose from: claude-desktop, claude-code, "),
        (["run"], 2, "Give a prompt, or - to read it from stdin."),
        (["ask", "last"], 2, "Give a prompt, or - to read it from stdin."),
        (["key", "set"], 1, "pipe it in: agent-jobs key set < FILE."),
        (["init"], 0, "Nothing is changed without --yes, because this is not a terminal."),
    ],
)
def test_command_that_cannot_ask_says_what_to_type(
    terminal: Terminal, command: list[str], status: int, advice: str
) -> None:
    terminal.pipe("run", WORK)
    [job] = list_jobs(terminal)
    shown = terminal.pipe(*command)
    assert (shown.returncode, advice.replace("JOB", job["job_id"]) in shown.stderr + shown.stdout) == (status, True), (
        shown
    )
    assert "Aborted" not in shown.stderr
    assert [each["job_id"] for each in list_jobs(terminal)] == [job["job_id"]]


def test_tool_is_always_allowed_by_a_flag_and_asked_for_again_by_another(terminal: Terminal):
    turns = [{"mcp_approval": BUY}, {"mcp_approval": BUY}, {"text": "Bought."}]
    job_id, [call] = start_asking_job(terminal, SHOP, turns=turns)
    assert terminal.pipe("reply", job_id, "--always", call["call_id"]).returncode == 0
    assert "always allowed  shop/buy" in terminal.pipe("show", job_id).stdout
    assert json.loads(terminal.pipe("show", job_id, "--json").stdout)["always_allowed"] == ["shop/buy"]
    assert terminal.pipe("reply", job_id, "--ask-again", "shop/buy").returncode == 0
    refused = terminal.pipe("reply", job_id, "--ask-again", "shop/buy")
    assert refused.returncode == 1
    assert f"does not always allow 'shop/buy'. See what is allowed with: agent-jobs show {job_id}" in refused.stderr
    assert "always" not in terminal.pipe("show", job_id).stdout
    assert terminal.pipe("watch", job_id).returncode == 6, "it asks for the second call"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["owner", "list"], 0),
        (["token", "list"], 0),
        (["result", "last"], 3),
        (["watch", "last"], 3),
        (["cancel", "last"], 0),
        (["stats"], 0),
        (["delete", "last", "--yes"], 0),
    ],
    ids=str,
)
def test_sentence_on_a_narrow_terminal_breaks_between_words(terminal: Terminal, command: list[str], code: int) -> None:
    message = "The server had an error while processing your request, and it says so at some length here."
    terminal.pipe("run", script_prompt(WORK, {"end": "failed", "error_message": message}))
    shown = terminal.show(*command, columns=60)
    assert (shown.returncode, shown.width <= 60) == (code, True), shown.text
    assert [line for line in shown.text.splitlines() if line != line.rstrip()] == []


def test_person_who_decides_sees_invisible_characters_as_escapes(terminal: Terminal):
    disguised = json.dumps({"path": "/tmp/\u202efdp.\u200bsecret"}, ensure_ascii=False) + "\b\b"
    job_id, _ = start_asking_job(terminal, SHOP, mcp_approval={**BUY, "arguments": disguised})
    shown = terminal.show("reply", job_id, columns=160, stop=lambda seen: "[y/N/always]" in seen, keys="\x04")
    assert r'Allow shop/buy {"path": "/tmp/\u202efdp.\u200bsecret"}\x08\x08? [y/N/always] ' in shown.text


def test_outputs_of_functions_are_given_by_their_calls(terminal: Terminal):
    job_id, [call] = start_asking_job(terminal, FUNCTION, function_calls=[{"name": "lookup", "arguments": {}}])
    assert f"agent-jobs reply {job_id[:10]}" in terminal.pipe("watch", job_id).stderr
    assert f"agent-jobs reply {job_id}" in terminal.pipe("result", job_id).stderr
    assert f"  agent-jobs reply {job_id} --output {call['call_id']}=TEXT\n" in terminal.pipe("reply", job_id).stderr
    refused = terminal.pipe("reply", job_id, "--output", "call_other=found", "--json")
    assert json.loads(refused.stdout)["error"]["code"] == "bad_request"
    assert terminal.pipe("reply", job_id, "--output", call["call_id"]).returncode == 2
    assert terminal.pipe("reply", job_id, "--output", f"{call['call_id']}=a=b").returncode == 0
    assert terminal.pipe("watch", job_id).returncode == 0
    assert terminal.pipe("reply", job_id, "--message", "Go on").returncode == 1
