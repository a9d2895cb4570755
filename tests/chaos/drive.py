"""Start, poll and cancel jobs through servers that are killed, then adopt the responses whose ids were lost."""

import re
import time
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

import anyio

from agent_jobs.app import open_app
from agent_jobs.emulator.app import Emulator
from agent_jobs.emulator.server import run_emulator
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

from .databases import JobDatabase, JobFile
from .faults import START_TIMEOUT_S, Json
from .plan import Options, Plan, draw_bursts, draw_kills, draw_plans
from .progress import Progress
from .story import End, GivenUpError, Story
from .windows import KEY, KilledError, RefusalError, Window, running_servers
from .witness import CreateCall, Death, Witness

#: Per cent of the jobs in flight that may run at the provider at once, so that some wait for a slot.
SLOTS_PERCENT = 75


@dataclass(slots=True, kw_only=True)
class Record:
    """All that was recorded of a run."""

    options: Options
    stories: list[Story]
    deaths: list[Death]
    create_calls: dict[str, list[CreateCall]]
    log: list[Json] = field(default_factory=list[Json])  #: the provider's
    rows: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])  #: title, status by job id
    complaints: list[str] = field(default_factory=list[str])
    closed_at: float = 0.0  #: when the last server had ended; later requests adopt
    slowest_start_s: float = 0.0  #: seconds beyond the requested wait
    duration_s: float = 0.0


async def run(options: Options, folder: Path, database: JobDatabase | None = None) -> Record:
    """Make a run in a folder of its own, within its limit. Without a database its jobs are in a file there."""
    database = database or JobFile(folder)
    began = time.monotonic()
    stories = [Story(plan) for plan in draw_plans(options)]
    witness = Witness(draw_kills(options), options.jobs)
    record = Record(options=options, stories=stories, deaths=witness.deaths, create_calls=witness.create_calls)
    # A response is kept for as long as the run may last, so that the busiest machine can adopt it.
    emulator = Emulator(options.speed, retention_s=options.limit_s * options.speed)
    emulator.queue_faults(fault for story in stories for fault in _create_faults(story.plan))
    emulator.app.add_middleware(witness.middleware)
    progress = Progress(options, stories, witness, folder)
    with run_emulator(emulator=emulator) as upstream:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(progress.report, tasks.cancel_scope)
            progress.stage = "jobs run"
            await _run_stories(record, witness, _build_windows(options, folder, database, upstream.base_url))
            progress.stage = "lost responses are adopted"
            await _adopt_lost(record, emulator, database, upstream.base_url)
            tasks.cancel_scope.cancel()
        progress.stage = "the upstream stops"
        record.log = emulator.log()
    progress.say(f"judged after {progress.line()}")
    record.complaints += _find_crashes(folder)
    record.duration_s = time.monotonic() - began
    return record


def _create_faults(plan: Plan) -> list[Json]:
    """Return the faults that the job's POSTs meet, one after the other."""
    return [{**post.fault, "on": "create", "match": f"{plan.key}:"} for post in plan.posts]


def _build_windows(options: Options, folder: Path, database: JobDatabase, base_url: str) -> list[Window]:
    """Return two windows on one database. One streams only a few of its jobs, so that it polls the others."""
    common = {
        **database.environment,
        "AGENT_JOBS_START_TIMEOUT_S": f"{START_TIMEOUT_S / options.speed:g}",
        "AGENT_JOBS_MAX_CONCURRENT": f"{options.in_flight * SLOTS_PERCENT // 100}",
    }
    few = {"AGENT_JOBS_FOLLOW": f"{options.in_flight // 5}"}
    environments = {"a": common, "b": common | few}
    return [Window(name, folder, database.data_dir(name), base_url, each) for name, each in environments.items()]


async def _run_stories(record: Record, witness: Witness, windows: list[Window]) -> None:
    """Run all jobs from their start to their end, as many at once as the options allow."""
    witness.windows |= {window.name: window for window in windows}
    hosts = _Hosts(record, witness, windows)
    slots = anyio.Semaphore(record.options.in_flight)
    left = iter(record.stories)
    try:
        async with running_servers(*windows), anyio.create_task_group() as tasks:
            for size in draw_bursts(record.options):
                if not (burst := list(islice(left, size))):
                    break
                for _ in burst:
                    await slots.acquire()
                for story in burst:
                    tasks.start_soon(hosts.run_story, story, slots)
    finally:
        record.closed_at = time.time()
        record.complaints += [complaint for window in windows for complaint in window.complaints]


class _Hosts:
    """The hosts of all jobs: each call goes to any server that runs."""

    def __init__(self, record: Record, witness: Witness, windows: list[Window]) -> None:
        self._record = record
        self._witness = witness
        self._windows = windows
        self._turns = count()
        self._ended = anyio.Event()

    async def run_story(self, story: Story, slots: anyio.Semaphore) -> None:
        """Start the job, poll it, cancel it if that is planned, and record its end."""
        plan = story.plan
        try:
            answer = await self._start(story)
            polls = 0
            while story.take_answer(answer):
                if polls == plan.cancel_after:
                    story.cancelled = True
                    answer = await self._ask(story, "agent_cancel")
                else:
                    answer = await self._ask(story, "agent_poll", wait_s=plan.poll_s)
                polls += 1
            story.end = End(
                answer["status"], answer.get("error", {}).get("code", ""), await self._read_output(story, answer)
            )
        except GivenUpError:
            pass  # the judge reports a job without an end
        finally:
            self._witness.progress += 1
            self._ended.set()
            self._ended = anyio.Event()
            slots.release()

    async def _start(self, story: Story) -> Json:
        """Start the job; if the server dies before it answers, ask for the same work again."""
        self._witness.progress += 1
        plan = story.plan
        arguments: Json = {"prompt": plan.prompt, "wait_s": plan.wait_s, "options": {"key": plan.key}}
        arguments |= {"model": plan.model} if plan.model else {}
        for attempt in count(plan.window):
            window = self._windows[attempt % len(self._windows)]
            try:
                question = await window.ask("agent_start", **arguments)
                began = time.monotonic()
                self._witness.notice(window.name, "start", 0)
                answer = await question.answer()
                over_s = time.monotonic() - began - plan.wait_s
                self._record.slowest_start_s = max(self._record.slowest_start_s, over_s)
                return answer
            except KilledError:
                story.lost_starts += 1
            except RefusalError as refusal:
                await self._wait_after_refusal(story, refusal)
        raise AssertionError("count() ends")

    async def _read_output(self, story: Story, answer: Json) -> str:
        """Return the whole output, read page by page."""
        output: str = answer.get("output", "")
        while len(output.encode()) < answer.get("bytes", 0):
            page = await self._ask(story, "agent_result", offset=len(output.encode()))
            output += page["output"]
        return output

    async def _ask(self, story: Story, tool: str, **arguments: float) -> Json:
        while True:
            window = self._windows[next(self._turns) % len(self._windows)]
            try:
                return await window.call(tool, job_id=story.job_id, **arguments)
            except KilledError:
                continue  # asking again costs nothing
            except RefusalError as refusal:
                await self._wait_after_refusal(story, refusal)

    async def _wait_after_refusal(self, story: Story, refusal: RefusalError) -> None:
        """Record a refusal, and wait a moment: a key was refused, or the database is locked."""
        story.take_refusal(refusal)
        with anyio.move_on_after(1):
            await self._ended.wait()


async def _adopt_lost(record: Record, emulator: Emulator, database: JobDatabase, base_url: str) -> None:
    """Read the final states from the database, and adopt the responses whose ids were lost."""
    record.rows = await database.read_rows()
    settings = database.settings(Settings(api_key=SecretStr(KEY), base_url=base_url))
    responses = {entry["metadata"]["job_id"]: entry for entry in emulator.log() if entry["entry"] == "response"}
    async with open_app(settings) as app, anyio.create_task_group() as tasks:
        engine = await app.engine()
        for story in record.stories:
            if story.job_id not in record.rows:
                continue
            job = await engine.poll(story.job_id)
            story.stored = _read_end(job)
            if job.is_unconfirmed and is_adoptable(responses.get(job.id)):
                tasks.start_soon(_adopt, engine, story, responses[job.id])


def is_adoptable(response: Json | None) -> bool:
    """Return True if the provider still has a response; a foreground run ends with its connection."""
    return response is not None and (response["background"] or response["status"] != "in_progress")


async def _adopt(engine: Engine, story: Story, response: Json) -> None:
    """Adopt a response as a user does who found it in the provider's dashboard."""
    try:
        job = await engine.adopt(story.job_id, response["id"])
    except RequestError:  # the provider may answer 404 once for a response that it has; the refusal says to repeat
        job = await engine.adopt(story.job_id, response["id"])
    if not response["ended"]:
        [job] = await engine.cancel(JobFilter(job_ids=(job.id,)))
    while not job.is_terminal:
        job = await engine.poll(job.id, wait_s=30)
    story.adopted = _read_end(job)


def _read_end(job: Job) -> End:
    return End(job.status, job.error.code if job.error else "", job.output.text if job.output else "")


def _find_crashes(folder: Path) -> list[str]:
    """Return the errors in the servers' logs, which no fault of a provider may cause."""
    logs = [*folder.rglob("agent-jobs.log*"), *folder.glob("stderr-*.txt")]
    text = "\n".join(log.read_text() for log in sorted(logs))
    return [f"logged: {found[0]}" for found in re.finditer(r"^.*ERROR .*(?:\nTraceback(?:\n .*)*\n.*)?", text, re.M)]
