"""What the environment says, read once and handed down as values."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args
from urllib.parse import urlsplit, urlunsplit

from agent_jobs.api_key import find_key_mistake
from agent_jobs.errors import ConfigError
from agent_jobs.jobs.job import Mode
from agent_jobs.text import nearest
from agent_jobs.text_file import BOM, open_text, read_text
from agent_jobs.variable_names import find_misnamed

DEFAULT_BASE_URL = "https://api.openai.com/v1"
AUTH_STYLES = ("auto", "bearer", "api-key")
#: Longer than any key, so that the path of something else is found out soon.
KEY_FILE_CHARS = 8192
ENV_LINE = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>[^\0]*?)\s*")
UNFILLED = re.compile(r"\$\{[^{}]*\}")
#: Paths below a base URL, as documentation and consoles show them whole.
ENDPOINT = re.compile(
    r"(?P<name>/(?:responses(?:/resp_[^/]*)?|(?:chat/)?completions|models|embeddings))/*$",
    re.I,
)
DEPLOYMENT = re.compile(r"/openai/deployments/[^/]+/*$", re.I)  # of Azure, before its v1 API
TASK_MODES = ("auto", "never")
SWITCH = ("0", "1")
#: What people write for them.
SWITCH_WORDS = {"no": "0", "off": "0", "false": "0", "yes": "1", "on": "1", "true": "1"}
LOG_LEVELS = ("debug", "info", "warning", "error")


class Variable(NamedTuple):
    """One environment variable, in the words of `agent-jobs config --explain`, docs/settings.md and .env.example."""

    field: str  #: of `Settings`
    takes: str  #: as its refusal says it
    about: str
    default: str = ""  #: as it would be written; empty where the program chooses, or does without
    page: str = ""  #: of docs/, where there is more


_KEY = "the key alone"
_PATH = "a path"
_WHOLE_PATH = "a path from / or ~ on"
#: Each variable, by what it is about.
SUBJECTS: Mapping[str, Mapping[str, Variable]] = {
    "The key and the endpoint": {
        "OPENAI_API_KEY": Variable("api_key", _KEY, "The key. Without it jobs can be read but not started."),
        "AGENT_JOBS_API_KEY_FILE": Variable(
            "api_key_file", _WHOLE_PATH,
            "A file whose first line is the key; it goes before OPENAI_API_KEY.", page="install.md#the-key",
        ),
        "OPENAI_BASE_URL": Variable(
            "base_url", "a web address",
            "Where the Responses API stands: on Azure https://RESOURCE.openai.azure.com/openai/v1, elsewhere an "
            "address that usually ends in /v1.", DEFAULT_BASE_URL,
        ),
        "OPENAI_ORG_ID": Variable("organization", "a text", "Sent as OpenAI-Organization."),
        "OPENAI_PROJECT_ID": Variable("project", "a text", "Sent as OpenAI-Project."),
        "AGENT_JOBS_AUTH": Variable(
            "auth", f"one of {', '.join(AUTH_STYLES)}",
            "The header that carries the key: Authorization (bearer) or api-key. auto takes api-key on Azure.", "auto",
        ),
        "AGENT_JOBS_MODE": Variable(
            "mode", f"one of auto, {', '.join(get_args(Mode))}",
            "How jobs are sent. auto finds out what the endpoint takes, and keeps it for a day.", "auto",
        ),
    },
    "What a job asks for": {
        "AGENT_JOBS_MODEL": Variable(
            "model", "the name of a model", "The model where neither a start nor its preset names one."
        ),
        "AGENT_JOBS_PRESETS": Variable("presets", _PATH, "A TOML file with presets of your own.", page="presets.md"),
        "AGENT_JOBS_FILE_ROOTS": Variable(
            "file_roots", "folders from / on, with ':' between them",
            "Folders whose files may be attached to jobs; without it none. On Windows ';' stands between them.",
            page="files.md",
        ),
        "AGENT_JOBS_SECRETS": Variable(
            "secrets", "the names of environment variables, with commas between",
            "Variables that hosted tools may carry as ${NAME} in headers and authorization.",
            page="requests.md#secrets",
        ),
    },
    "Where things are kept": {
        "AGENT_JOBS_DATA_DIR": Variable(
            "data_dir", _WHOLE_PATH,
            "The folder of the database, the locks and the log; without it the user data folder.",
        ),
        "AGENT_JOBS_RESULT_DIR": Variable(
            "result_dir", _WHOLE_PATH,
            "A folder where every finished result is also written as a Markdown file, with the files that a run made.",
            page="files.md#what-a-run-makes",
        ),
        "AGENT_JOBS_RETENTION_DAYS": Variable(
            "retention_days", "days from 1 to 3650",
            "Ended jobs whose results were read are deleted after this many days. Without it all jobs are kept.",
            page="reliability.md#how-long-jobs-are-kept",
        ),
        "AGENT_JOBS_DELETE_UPSTREAM": Variable(
            "delete_upstream", "one of no, yes",
            "yes: a job that is deleted here is deleted at the provider, too.", "no",
            page="reliability.md#how-long-jobs-are-kept",
        ),
    },
    "Waiting and limits": {
        "AGENT_JOBS_MAX_WAIT_S": Variable(
            "max_wait_s", "seconds from 1 to 3600",
            "The longest that a tool call waits. Without it by the client: 1500 s in Claude Code, 540 s in Gemini CLI "
            "and Qwen Code, 380 s in OpenCode and Kilo, 240 s in Codex and Goose, 25 s under an SDK's own name, else "
            "45 s, since most cut at 60 s. A client that cancels a waiting call is answered sooner from then on.",
            page="tools.md#how-long-a-call-waits",
        ),
        "AGENT_JOBS_TASKS": Variable(
            "tasks", f"one of {', '.join(TASK_MODES)}",
            "auto: a host that declares native tasks gets a job as a task and waits for it itself. never: it waits by "
            "agent_poll as all others.", "auto", page="tools.md#native-tasks",
        ),
        "AGENT_JOBS_START_TIMEOUT_S": Variable(
            "start_timeout_s", "seconds from 1 to 900",
            "How long a silent upstream is waited for at the start of a job.", "120",
        ),
        "AGENT_JOBS_JOB_TIMEOUT_S": Variable(
            "job_timeout_s", "seconds from 1 to 604800",
            "A run that takes longer is cancelled, and what came is kept.", "10800",
        ),
        "AGENT_JOBS_MAX_CONCURRENT": Variable(
            "max_concurrent", "a whole number from 1 to 9999",
            "How many jobs run upstream at once, over all servers on one database; the others wait for a slot.", "10",
        ),
        "AGENT_JOBS_FOLLOW": Variable(
            "follow", "auto, never, or how many streams to read at once, up to 9999",
            "How many jobs are followed by their stream at once, which shows an end within a moment; the others are "
            "looked at. auto is 200.", "auto",
        ),
        "AGENT_JOBS_RESUBMIT": Variable(
            "resubmit", "one of never, once",
            "once: a start that nobody can confirm is sent again; it may then cost twice.", "never",
            page="reliability.md#what-is-not-promised",
        ),
    },
    "Tools of your own": {
        "AGENT_JOBS_TOOLBOX": Variable(
            "toolbox", _PATH, "A file with MCP servers of your own whose tools jobs may use.", page="agent-loop.md"
        ),
        "AGENT_JOBS_TOOL_CONCURRENCY": Variable(
            "tool_concurrency", "a whole number from 1 to 9999", "How many calls of such tools run at once.", "4"
        ),
        "AGENT_JOBS_APPROVALS": Variable(
            "approvals", "one of ask, model",
            "Who approves calls that change something: ask a person (a dialog of the host, or agent-jobs reply), or "
            "the host's model by agent_reply.", "ask", page="agent-loop.md#who-answers",
        ),
        "AGENT_JOBS_INPUT_TIMEOUT_S": Variable(
            "input_timeout_s", "seconds from 10 to 2592000", "How long a job waits for an answer before it fails.",
            "604800",
        ),
    },
    "When a job ends": {
        "AGENT_JOBS_ON_FINISH": Variable(
            "on_finish", "a command as for a shell",
            "A command that is run when a job ended or asks for something, with the job as JSON on its stdin.",
            page="on-finish.md",
        ),
    },
    "Money": {
        "AGENT_JOBS_DAILY_BUDGET_USD": Variable(
            "daily_budget_usd", "an amount in USD above 0",
            "What all starts of a day (UTC) may cost together; what could cost more is not started.",
            page="cost.md#the-budget",
        ),
        "AGENT_JOBS_BUDGET_MODE": Variable(
            "budget_mode", "one of bound, spent",
            "What counts to the budget: the most that running jobs may cost (bound), or only what was spent (spent).",
            "bound", page="cost.md#the-budget",
        ),
        "AGENT_JOBS_PRICES": Variable(
            "prices", _PATH, "A price table of your own, a TOML file.", page="cost.md#your-price-table"
        ),
    },
    "What hosts are sent": {
        "AGENT_JOBS_STRUCTURED": Variable(
            "structured", f"one of {', '.join(SWITCH)}",
            "1: tool answers also come as structuredContent, for programs; some hosts show a model both copies.", "0",
        ),
    },
    "The log": {
        "AGENT_JOBS_LOG_LEVEL": Variable(
            "log_level", f"one of {', '.join(LOG_LEVELS)}", "What goes to stderr.", "warning"
        ),
    },
}  # fmt: skip
VARIABLES: Mapping[str, Variable] = {
    name: variable for variables in SUBJECTS.values() for name, variable in variables.items()
}


class SecretStr:
    """A text that shows only to who asks for it; as pydantic's, whose import a terminal would wait for."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """The text itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "SecretStr('**********')" if self._text else "SecretStr('')"

    __str__ = __repr__


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a person can set. `None` means that the program chooses or does without."""

    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    base_url: str = DEFAULT_BASE_URL
    organization: str | None = None
    project: str | None = None
    auth: str = "auto"
    model: str | None = None
    presets: Path | None = None
    secrets: Mapping[str, SecretStr] = field(default_factory=dict[str, SecretStr])
    data_dir: Path | None = None
    max_wait_s: float | None = None
    tasks: str = "auto"
    file_roots: tuple[Path, ...] = ()
    result_dir: Path | None = None
    start_timeout_s: float = 120.0
    follow: int = 200
    max_concurrent: int = 10
    job_timeout_s: float = 10_800.0
    mode: Mode | Literal["auto"] = "auto"
    resubmit: str = "never"
    retention_days: float | None = None
    delete_upstream: str = "no"
    toolbox: Path | None = None
    tool_concurrency: int = 4
    approvals: str = "ask"
    input_timeout_s: float = 604_800.0
    on_finish: tuple[str, ...] = ()
    prices: Path | None = None
    daily_budget_usd: float | None = None
    budget_mode: str = "bound"
    structured: bool = False
    log_level: str = "warning"
    warnings: tuple[str, ...] = ()  #: of what was set: a sentence for each thing that is not as it was meant

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings from environment variables; one that is empty or was not filled in counts as not set.

        Raises:
            ConfigError: A value cannot be used; the message names the variable and what it takes.
        """
        env = {name: value.strip() for name, value in environ.items() if value.strip() and not _unfilled(name, value)}
        key_file = _absolute(env, "AGENT_JOBS_API_KEY_FILE")
        on_finish, not_run = _command(env, "AGENT_JOBS_ON_FINISH")
        key, not_filled_in = (_key_from(key_file), []) if key_file else _key(env, "OPENAI_API_KEY")
        return cls(
            api_key=SecretStr(key) if key else None,
            api_key_file=key_file,
            base_url=_url(env, "OPENAI_BASE_URL", DEFAULT_BASE_URL),
            organization=_header(env, "OPENAI_ORG_ID"),
            project=_header(env, "OPENAI_PROJECT_ID"),
            auth=_one_of(env, "AGENT_JOBS_AUTH", AUTH_STYLES, "auto"),
            model=env.get("AGENT_JOBS_MODEL"),
            presets=_path(env, "AGENT_JOBS_PRESETS"),
            secrets=_secrets(env, "AGENT_JOBS_SECRETS"),
            data_dir=_absolute(env, "AGENT_JOBS_DATA_DIR"),
            max_wait_s=_max_wait_s(env, "AGENT_JOBS_MAX_WAIT_S"),
            tasks=_one_of(env, "AGENT_JOBS_TASKS", TASK_MODES, "auto"),
            file_roots=_folders(env, "AGENT_JOBS_FILE_ROOTS"),
            result_dir=_absolute(env, "AGENT_JOBS_RESULT_DIR"),
            start_timeout_s=_seconds(env, "AGENT_JOBS_START_TIMEOUT_S", 120.0, 1.0, 900.0),
            max_concurrent=_whole(env, "AGENT_JOBS_MAX_CONCURRENT", 10),
            job_timeout_s=_seconds(env, "AGENT_JOBS_JOB_TIMEOUT_S", 10_800.0, 1.0, 7 * 86_400.0),
            mode=cast("Mode", _one_of(env, "AGENT_JOBS_MODE", ("auto", *get_args(Mode)), "auto")),
            resubmit=_one_of(env, "AGENT_JOBS_RESUBMIT", ("never", "once"), "never"),
            retention_days=_days(env, "AGENT_JOBS_RETENTION_DAYS"),
            delete_upstream=_one_of(env, "AGENT_JOBS_DELETE_UPSTREAM", ("no", "yes"), "no"),
            toolbox=_path(env, "AGENT_JOBS_TOOLBOX"),
            tool_concurrency=_whole(env, "AGENT_JOBS_TOOL_CONCURRENCY", 4),
            approvals=_one_of(env, "AGENT_JOBS_APPROVALS", ("ask", "model"), "ask"),
            input_timeout_s=_seconds(env, "AGENT_JOBS_INPUT_TIMEOUT_S", 604_800.0, 10.0, 2_592_000.0),
            on_finish=on_finish,
            prices=_path(env, "AGENT_JOBS_PRICES"),
            daily_budget_usd=_dollars(env, "AGENT_JOBS_DAILY_BUDGET_USD"),
            budget_mode=_one_of(env, "AGENT_JOBS_BUDGET_MODE", ("bound", "spent"), "bound"),
            follow=_follow(env, "AGENT_JOBS_FOLLOW", 200),
            structured=_is_on(env, "AGENT_JOBS_STRUCTURED"),
            log_level=_one_of(env, "AGENT_JOBS_LOG_LEVEL", LOG_LEVELS, "warning"),
            warnings=(
                *not_filled_in,
                *find_misnamed(env, VARIABLES),
                *_unwritable(env, "AGENT_JOBS_RESULT_DIR"),
                *not_run,
            ),
        )

    @classmethod
    def forgiving(cls, environ: Mapping[str, str]) -> "tuple[Settings, list[str]]":
        """What is left of the settings without what cannot be used, and a sentence for each thing that cannot."""
        env, refused = dict(environ), list[str]()
        while True:
            try:
                return cls.from_env(env), refused
            except ConfigError as error:
                refused.append(str(error))
                named = [name for name in env if re.search(rf"\b{re.escape(name)}\b", refused[-1])]
                # An unrelated variable may happen to be called like a word of the sentence.
                for name in [name for name in named if name in VARIABLES] or named or list(env):
                    del env[name]

    def data_path(self) -> Path:
        """The folder of the database, the locks and the log."""
        if self.data_dir is not None:
            return self.data_dir
        import platformdirs  # not needed to answer `initialize`

        return Path(platformdirs.user_data_dir("agent-jobs", appauthor=False))


def _unwritable(env: Mapping[str, str], name: str) -> list[str]:
    """A sentence where files cannot be written below the folder that a variable names."""
    folder = _path(env, name)
    standing = next((each for each in (folder, *folder.parents) if os.path.exists(each)), None) if folder else None
    if standing is None or (os.path.isdir(standing) and os.access(standing, os.W_OK | os.X_OK)):
        return []
    return [f"{name} names {folder}, where nothing can be written: make {standing} a folder that is writable."]


def with_env_file(environ: Mapping[str, str], path: str) -> dict[str, str]:
    """The environment and what a file of NAME=VALUE lines adds to it; what is already set to something stays.

    Empty lines and lines that begin with # say nothing, `export ` before a name is passed over, and one pair of
    quotes around a value is taken off. Nothing is expanded or unescaped, and no value goes over several lines.

    Raises:
        ConfigError: The file cannot be read, or a line of it is something else; the message gives its number.
    """
    try:
        lines = read_text(Path(path)).splitlines()
    except (OSError, ValueError):
        raise ConfigError(f"The file of --env-file cannot be read as text: {path!r}; name one that exists.") from None
    added: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pair = ENV_LINE.fullmatch(line)
        if pair is None:
            raise ConfigError(f"Line {number} of {path!r} is not NAME=VALUE: correct it, or put # before it.")
        value = pair["value"]
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        added[pair["name"]] = value[1:-1] if quoted else value
    return added | {name: value for name, value in environ.items() if value.strip() or name not in added}


def _key_from(path: Path) -> str:
    """The first line of a file that the user named."""
    name = "AGENT_JOBS_API_KEY_FILE"
    try:
        with open_text(path) as file:
            line = file.readline(KEY_FILE_CHARS).lstrip(BOM).strip()
            if file.encoding != "utf-8" and not line.isascii():
                raise ValueError  # its first bytes were no mark
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no text"
        raise ConfigError(
            f"{name} names {path}, which cannot be read ({reason}): put the key into that file."
        ) from None
    if not line:
        raise ConfigError(f"{name} names {path}, whose first line is empty: put the key there.")
    if len(line) == KEY_FILE_CHARS:
        raise ConfigError(f"{name} names {path}, whose first line is longer than any key: put the key there.")
    if mistake := find_key_mistake(line):
        fix = "put the key itself there" if mistake.is_unset else mistake.fix
        raise ConfigError(f"{name} names {path}, whose first line {mistake.what}: {fix}.")
    _header({name: line}, name)
    return line


def _unfilled(name: str, value: str) -> bool:
    """Whether a host handed a reference on as it stands: Claude Desktop does for a field that was left empty."""
    return name != "OPENAI_API_KEY" and UNFILLED.fullmatch(value.strip()) is not None


def _key(env: Mapping[str, str], name: str) -> tuple[str | None, list[str]]:
    """Return the key, and a sentence if a reference that was not filled in stands in its place.

    Raises:
        ConfigError: It is certainly no key.
    """
    mistake = find_key_mistake(env.get(name, ""))
    if mistake is None:
        return _header(env, name), []
    if not mistake.is_unset:
        raise ConfigError(f"{name} takes {_KEY}, and this {mistake.what}: {mistake.fix}.")
    return None, [f"{name} {mistake.what}: {mistake.fix}."]


def _header(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name)
    if value is not None and not (value.isascii() and value.isprintable()):
        raise ConfigError(
            f"{name} holds characters that no header can carry: copy it again, without what is around it."
        )
    return value


def _secrets(env: Mapping[str, str], name: str) -> Mapping[str, SecretStr]:
    """The secrets that are named; one whose variable is not set is empty, and missed where it is used."""
    named = [each.strip() for each in env.get(name, "").split(",") if each.strip()]
    if not all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", each) for each in named):
        raise ConfigError(f"{name} takes the names of environment variables, with commas between; never their values.")
    return {each: SecretStr(_header(env, each) or "") for each in named}


def _path(env: Mapping[str, str], name: str) -> Path | None:
    try:
        return Path(env[name]).expanduser() if name in env else None
    except RuntimeError:
        raise ConfigError(f"{name} begins with a home folder that does not exist: write the whole path.") from None


def _absolute(env: Mapping[str, str], name: str) -> Path | None:
    path = _path(env, name)
    if path is not None and not path.is_absolute():
        raise ConfigError(f"{name} takes {_WHOLE_PATH}: a host starts this server in a folder of its own.")
    return path


def _command(env: Mapping[str, str], name: str) -> tuple[tuple[str, ...], list[str]]:
    """A program and its arguments, or none and a sentence: that a job's end is told to nobody must not stop jobs."""
    if name not in env:
        return (), []
    import shlex  # neither is needed where the variable is not set
    import shutil

    try:
        program, *arguments = shlex.split(env[name])
        program = os.path.expanduser(program)
    except ValueError as error:
        return (), [f"{name} is not run because of its quotes ({str(error).lower()}): write it as for a shell."]
    # What stands there in place of a program may be an address with a secret in it: it is not shown.
    if os.path.dirname(program) and not os.path.isabs(program):
        why = "its program is neither a name nor a path from / or ~ on"
    elif shutil.which(program, path=env.get("PATH")) is None:
        why = "its first word is no program that can be found and run"
    else:
        return (program, *arguments), []
    return (), [f"{name} is not run because {why}: begin it with the path of one."]


def _folders(env: Mapping[str, str], name: str) -> tuple[Path, ...]:
    """Absolute folders that exist, each once, in their order."""
    written = [part.strip() for part in env.get(name, "").split(os.pathsep) if part.strip()]
    folders = [folder for part in written if (folder := _path({name: part}, name))]
    for folder in folders:
        if not folder.is_absolute():
            raise ConfigError(f"{name} takes folders from / on, with {os.pathsep!r} between them: one is not absolute.")
        if not os.path.isdir(folder):
            raise ConfigError(f"{name} names {folder}, which is no folder: set it to folders that exist.")
    return tuple(dict.fromkeys(folders))


def _url(env: Mapping[str, str], name: str, default: str) -> str:
    url = env.get(name, default)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable, parts = False, None
    if not usable or parts is None:
        raise ConfigError(f"{name} is not a web address: set it to something like {DEFAULT_BASE_URL}.")
    if "@" in parts.netloc:
        raise ConfigError(f"{name} holds a name or password, which would be sent instead of the key: leave it out.")
    if ending := ENDPOINT.search(parts.path):
        corrected = _base_of(parts.scheme, parts.netloc, parts.path, parts.query)
        path = ending["name"].lower()
        raise ConfigError(f"{name} ends in {path}, which is added to it: remove it, so that it is {corrected}.")
    return url


def _base_of(scheme: str, netloc: str, path: str, query: str) -> str:
    """Return the address of an API from that of one of its endpoints, without what may be secret in its query."""
    while ending := ENDPOINT.search(path):
        path = path[: ending.start()]
    if DEPLOYMENT.search(path):
        path, query = DEPLOYMENT.sub("/openai/v1", path), ""  # versions by date are not for this path
    shown = [pair if pair.startswith("api-version=") else f"{pair.partition('=')[0]}=..." for pair in query.split("&")]
    return urlunsplit((scheme, netloc, path.rstrip("/"), "&".join(shown) if query else "", ""))


def _seconds(env: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    try:
        seconds = float(env.get(name, default))
    except ValueError:
        seconds = -1.0
    if not least <= seconds <= most:
        raise ConfigError(f"{name} takes seconds from {least:.10g} to {most:.10g}; without it {default:.10g} are used.")
    return seconds


def _days(env: Mapping[str, str], name: str) -> float | None:
    if name not in env:
        return None
    try:
        days = float(env[name])
    except ValueError:
        days = 0.0
    if not 1.0 <= days <= 3650.0:
        raise ConfigError(f"{name} takes days from 1 to 3650; without it all jobs are kept.")
    return days


def _max_wait_s(env: Mapping[str, str], name: str) -> float | None:
    return _seconds(env, name, 45.0, 1.0, 3600.0) if name in env else None


def _dollars(env: Mapping[str, str], name: str) -> float | None:
    if name not in env:
        return None
    try:
        usd = float(env[name])
    except ValueError:
        usd = 0.0
    if not 0.0 < usd < 1e9:
        raise ConfigError(f"{name} takes an amount in USD above 0, such as 20; without it there is no budget.")
    return usd


def _follow(env: Mapping[str, str], name: str, default: int) -> int:
    value = env.get(name, "auto").lower()
    if value in ("auto", "never"):
        return default if value == "auto" else 0
    try:
        return _whole(env, name, default, least=0)
    except ConfigError:
        raise ConfigError(f"{name} takes auto, never, or how many streams to read at once, up to 9999.") from None


def _whole(env: Mapping[str, str], name: str, default: int, least: int = 1) -> int:
    value = env.get(name, str(default))
    if not (value.isascii() and value.isdecimal() and least <= int(value[:5]) <= 9999):
        raise ConfigError(f"{name} takes a whole number from {least} to 9999; without it {default} is used.")
    return int(value)


def _is_on(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name, "0").lower()
    return _one_of({name: SWITCH_WORDS.get(value, value)}, name, SWITCH, "0") == "1"


def _one_of(env: Mapping[str, str], name: str, values: tuple[str, ...], default: str) -> str:
    value = env.get(name, default).lower()
    if value not in values:
        near = nearest(value, values)
        hint = f" Did you mean {near!r}?" if near is not None else ""
        raise ConfigError(f"{name} takes one of {', '.join(values)}.{hint}")
    return value
