"""Declare every setting once, and read them from the environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from agent_jobs.callback_urls import AllowedHost
from agent_jobs.errors import ConfigError, SettingWarning
from agent_jobs.settings import notice_targets as notices
from agent_jobs.settings import path_values, secret_values, values
from agent_jobs.settings.callback_hosts import callback_hosts
from agent_jobs.settings.declaration import (
    ANSWERS,
    ENDPOINT,
    FINISH,
    LIMITS,
    LISTED_SUBJECTS,
    LOG,
    MONEY,
    REQUEST,
    STORAGE,
    TOOLS,
    Variable,
    declare_setting,
)
from agent_jobs.settings.notice_targets import NoticeTarget
from agent_jobs.settings.stored_keys import StoredKey
from agent_jobs.settings.team_settings import TeamSettings
from agent_jobs.settings.values import SecretStr, Written
from agent_jobs.settings.variable_names import find_misnamed

DEFAULT_BASE_URL = "https://api.openai.com/v1"
CONFIG = "AGENT_JOBS_CONFIG"
DEFAULT_STREAMS = 200
AUTH_STYLES = ("auto", "bearer", "api-key")
LOG_LEVELS = ("debug", "info", "warning", "error")
#: `jobs.job.Mode`, which this module does not import, and auto.
SendingMode = Literal["auto", "background_stream", "background", "foreground"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(TeamSettings):
    """Everything a user can set. `None` means that the program chooses or does without."""

    api_key: SecretStr | None = declare_setting(
        "OPENAI_API_KEY",
        ENDPOINT,
        secret_values.api_key(),
        "The API key. Without it, the stored key of the endpoint is used (agent-jobs key). With neither, you can read "
        "jobs but not start them.",
        page="install.md#the-key",
    )
    api_key_file: Path | None = declare_setting(
        "AGENT_JOBS_API_KEY_FILE",
        ENDPOINT,
        path_values.absolute_path(),
        "A file with the key on its first line. It takes precedence over OPENAI_API_KEY.",
        page="install.md#the-key",
    )
    base_url: str = declare_setting(
        "OPENAI_BASE_URL",
        ENDPOINT,
        values.base_url(DEFAULT_BASE_URL),
        "The address of the Responses API: on Azure https://RESOURCE.openai.azure.com/openai/v1, elsewhere an "
        "address that usually ends in /v1.",
        default=DEFAULT_BASE_URL,
    )
    organization: str | None = declare_setting(
        "OPENAI_ORG_ID", ENDPOINT, values.header("a string"), "Sent as OpenAI-Organization."
    )
    project: str | None = declare_setting(
        "OPENAI_PROJECT_ID", ENDPOINT, values.header("a string"), "Sent as OpenAI-Project."
    )
    auth: str = declare_setting(
        "AGENT_JOBS_AUTH",
        ENDPOINT,
        values.choice(*AUTH_STYLES),
        "The header that carries the key: Authorization (bearer) or api-key. auto uses api-key on Azure.",
        default="auto",
    )
    mode: SendingMode = declare_setting(
        "AGENT_JOBS_MODE",
        ENDPOINT,
        values.choice(*get_args(SendingMode)),
        "How jobs are sent. auto finds out which way the endpoint supports, and remembers it for a day.",
        default="auto",
    )

    model: str | None = declare_setting(
        "AGENT_JOBS_MODEL",
        REQUEST,
        values.anything("the name of a model"),
        "The model of a job whose start and preset name none.",
    )
    presets: Path | None = declare_setting(
        "AGENT_JOBS_PRESETS", REQUEST, path_values.path(), "A TOML file with presets of your own.", page="presets.md"
    )
    file_roots: tuple[Path, ...] = declare_setting(
        "AGENT_JOBS_FILE_ROOTS",
        REQUEST,
        path_values.folders(),
        "Folders whose files hosts may attach to jobs. Without it hosts can attach none. --file at the terminal also "
        "reads what you name. On Windows, separate them with ';'.",
        page="files.md",
    )
    secrets: Mapping[str, SecretStr] = declare_setting(
        "AGENT_JOBS_SECRETS",
        REQUEST,
        secret_values.secret_names(),
        "Variables that hosted tools may use as ${NAME} in headers and authorization.",
        page="requests.md#secrets",
    )

    config: Path | None = declare_setting(
        "AGENT_JOBS_CONFIG",
        STORAGE,
        path_values.absolute_path(),
        "The settings file. Stored keys are in the folder keys beside it. Without it ~/.config/agent-jobs/config.toml "
        "is used.",
        page="settings.md#the-settings-file",
    )
    data_dir: Path | None = declare_setting(
        "AGENT_JOBS_DATA_DIR",
        STORAGE,
        path_values.absolute_path(),
        "The folder of the database, the locks and the log. Without it the user data folder is used.",
    )
    database_url: SecretStr | None = declare_setting(
        "AGENT_JOBS_DATABASE_URL",
        STORAGE,
        secret_values.database_url(),
        "A PostgreSQL database for the jobs of several machines. Without it the jobs are in a file of the data folder.",
        page="team.md",
    )
    database_password_file: Path | None = declare_setting(
        "AGENT_JOBS_DATABASE_PASSWORD_FILE",
        STORAGE,
        path_values.absolute_path(),
        "A file with the password of the database on its first line. It takes precedence over one in the URL.",
        page="team.md",
    )
    database_listen_url: SecretStr | None = declare_setting(
        "AGENT_JOBS_DATABASE_LISTEN_URL",
        STORAGE,
        secret_values.database_url(),
        "The same database without a pooler, for the connection that listens. Set it if AGENT_JOBS_DATABASE_URL leads "
        "to PgBouncer.",
        page="team.md",
    )
    pool: int = declare_setting(
        "AGENT_JOBS_POOL",
        STORAGE,
        values.count(),
        "The most connections to PostgreSQL that this process opens, beside the one that listens.",
        default="10",
        page="team.md",
    )
    result_dir: Path | None = declare_setting(
        "AGENT_JOBS_RESULT_DIR",
        STORAGE,
        path_values.output_folder(),
        "A folder where every finished result is also written as a Markdown file, with the files that the run made.",
        page="files.md#what-a-run-makes",
    )
    retention_days: float | None = declare_setting(
        "AGENT_JOBS_RETENTION_DAYS",
        STORAGE,
        values.days(1, 3650, "Without it all jobs are kept."),
        "Finished jobs whose results were read are deleted after this many days. Without it all jobs are kept.",
        page="reliability.md#how-long-jobs-are-kept",
    )
    delete_upstream: str = declare_setting(
        "AGENT_JOBS_DELETE_UPSTREAM",
        STORAGE,
        values.choice("no", "yes"),
        "yes: a job that is deleted here is also deleted at the provider.",
        default="no",
        page="reliability.md#how-long-jobs-are-kept",
    )

    max_wait_s: float | None = declare_setting(
        "AGENT_JOBS_MAX_WAIT_S",
        LIMITS,
        values.seconds(1, 3600),
        "The longest time that a tool call waits. Without it the client decides: 1500 s in Claude Code, 540 s in "
        "Gemini CLI and Qwen Code, 380 s in OpenCode and Kilo, 240 s in Codex and Goose, 25 s under an SDK's own name, "
        "else 45 s, since most clients cut calls at 60 s. A client that cancels a waiting call gets earlier answers "
        "from then on.",
        page="tools.md#how-long-a-call-waits",
    )
    webhook_secret_file: Path | None = declare_setting(
        "AGENT_JOBS_WEBHOOK_SECRET_FILE",
        LIMITS,
        path_values.absolute_path(),
        "A file with the signing secret of the provider's webhooks, two on two lines while it is being changed. With "
        "it, a server over HTTP accepts webhooks, and jobs are rarely polled.",
        page="team-webhooks.md",
    )
    tasks: str = declare_setting(
        "AGENT_JOBS_TASKS",
        LIMITS,
        values.choice("auto", "never"),
        "auto: a host that declares native tasks gets a job as a task and waits for it itself. never: it waits with "
        "agent_poll like all others.",
        default="auto",
        page="tools.md#native-tasks",
    )
    start_timeout_s: float = declare_setting(
        "AGENT_JOBS_START_TIMEOUT_S",
        LIMITS,
        values.seconds(1, 900),
        "How long the start of a job waits for a silent provider.",
        default="120",
    )
    job_timeout_s: float = declare_setting(
        "AGENT_JOBS_JOB_TIMEOUT_S",
        LIMITS,
        values.seconds(1, 604_800),
        "A run that takes longer is cancelled. The output until then is kept.",
        default="10800",
    )
    max_concurrent: int = declare_setting(
        "AGENT_JOBS_MAX_CONCURRENT",
        LIMITS,
        values.count(),
        "How many jobs run at the provider at once, over all servers on one database. The others wait for a slot.",
        default="10",
    )
    owner_max_concurrent: int | None = declare_setting(
        "AGENT_JOBS_OWNER_MAX_CONCURRENT",
        LIMITS,
        values.count(),
        "How many jobs of one owner of a team server run at once. agent-jobs owner set changes it for one owner.",
        page="team.md#owners-and-limits",
    )
    owner_starts_per_minute: int | None = declare_setting(
        "AGENT_JOBS_OWNER_STARTS_PER_MINUTE",
        LIMITS,
        values.count(),
        "How many jobs one owner of a team server may start in a minute. agent-jobs owner set changes it for one.",
        page="team.md#owners-and-limits",
    )
    follow: int = declare_setting(
        "AGENT_JOBS_FOLLOW",
        LIMITS,
        values.streams(DEFAULT_STREAMS),
        "How many jobs are streamed at once, which shows their finish within a moment. The others are polled. "
        f"auto is {DEFAULT_STREAMS}.",
        default="auto",
    )
    resubmit: str = declare_setting(
        "AGENT_JOBS_RESUBMIT",
        LIMITS,
        values.choice("never", "once"),
        "once: a start that could not be confirmed is sent again. It may then cost twice.",
        default="never",
        page="reliability.md#what-is-not-promised",
    )

    toolbox: Path | None = declare_setting(
        "AGENT_JOBS_TOOLBOX",
        TOOLS,
        path_values.path(),
        "A file with MCP servers of your own whose tools jobs may use.",
        page="agent-loop.md",
    )
    tool_concurrency: int = declare_setting(
        "AGENT_JOBS_TOOL_CONCURRENCY", TOOLS, values.count(), "How many calls of these tools run at once.", default="4"
    )
    approvals: str = declare_setting(
        "AGENT_JOBS_APPROVALS",
        TOOLS,
        values.choice("ask", "model"),
        "Who approves calls that change something. ask: a person, in a dialog of the host or with agent-jobs reply. "
        "model: the host's model, with agent_reply.",
        default="ask",
        page="agent-loop.md#who-answers",
    )
    input_timeout_s: float = declare_setting(
        "AGENT_JOBS_INPUT_TIMEOUT_S",
        TOOLS,
        values.seconds(10, 2_592_000),
        "How long a job waits for an answer before it fails.",
        default="604800",
    )

    on_finish: tuple[str, ...] = declare_setting(
        "AGENT_JOBS_ON_FINISH",
        FINISH,
        path_values.command(),
        "A command that runs when a job finishes or asks for something. It gets the job as JSON on its stdin.",
        page="on-finish.md",
    )
    notify: tuple[NoticeTarget, ...] = declare_setting(
        "AGENT_JOBS_NOTIFY",
        FINISH,
        notices.notice_targets(),
        "Where you get notices of jobs. $NAME in place of an address stands for the variable that holds it.",
        page="notices.md",
    )
    notify_events: frozenset[str] = declare_setting(
        "AGENT_JOBS_NOTIFY_EVENTS",
        FINISH,
        notices.notice_events(),
        "The events that you get notices of.",
        default="finished,needs_input,budget",
        page="notices.md",
    )
    notify_min_s: float = declare_setting(
        "AGENT_JOBS_NOTIFY_MIN_S",
        FINISH,
        values.seconds(0, 604_800),
        "Jobs that finish sooner than this after their start send no notice.",
        default="60",
        page="notices.md",
    )
    notify_secret: SecretStr | None = declare_setting(
        "AGENT_JOBS_NOTIFY_SECRET",
        FINISH,
        notices.webhook_secret(),
        "Signs the notices of a webhook, so that its receiver knows who sent them.",
        page="notices.md",
    )

    callback_hosts: tuple[AllowedHost, ...] = declare_setting(
        "AGENT_JOBS_CALLBACK_HOSTS",
        FINISH,
        callback_hosts(),
        "The hosts that options.callback_url of a start may name, and subscribers to events of a team server. Without "
        "it nothing is called back.",
        page="team-webhooks.md#callbacks",
    )
    callback_secret_file: Path | None = declare_setting(
        "AGENT_JOBS_CALLBACK_SECRET_FILE",
        FINISH,
        path_values.absolute_path(),
        "A file with the secret that signs callbacks, two on two lines while it is being changed.",
        page="team-webhooks.md#callbacks",
    )

    daily_budget_usd: float | None = declare_setting(
        "AGENT_JOBS_DAILY_BUDGET_USD",
        MONEY,
        values.dollars("Set it to an amount such as 20, or remove it for no budget."),
        "The most that all starts of a day (UTC) may cost together. A job that could cost more is not started.",
        page="cost.md#the-budget",
    )
    budget_mode: str = declare_setting(
        "AGENT_JOBS_BUDGET_MODE",
        MONEY,
        values.choice("bound", "spent"),
        "What counts towards the budget. bound: the most that running jobs may cost. spent: only what was spent.",
        default="bound",
        page="cost.md#the-budget",
    )
    owner_daily_budget_usd: float | None = declare_setting(
        "AGENT_JOBS_OWNER_DAILY_BUDGET_USD",
        MONEY,
        values.dollars("Set it to an amount such as 20, or remove it for no budget."),
        "The same for each owner of a team server. agent-jobs owner set gives one owner another budget.",
        page="team.md#owners-and-limits",
    )
    prices: Path | None = declare_setting(
        "AGENT_JOBS_PRICES",
        MONEY,
        path_values.path(),
        "A TOML file with your own price table.",
        page="cost.md#your-price-table",
    )

    structured: bool = declare_setting(
        "AGENT_JOBS_STRUCTURED",
        ANSWERS,
        values.switch(),
        "1: tool answers also come as structuredContent, for programs. Some hosts then show a model both copies.",
        default="0",
    )
    log_level: str = declare_setting(
        "AGENT_JOBS_LOG_LEVEL",
        LOG,
        values.choice(*LOG_LEVELS),
        "The least severe messages that go to stderr.",
        default="warning",
    )
    warnings: tuple[SettingWarning, ...] = ()  #: what is set and does not work as the user meant
    stored_key: StoredKey | None = None  #: the origin of the key, if it was stored with `agent-jobs key set`

    @classmethod
    def from_env(cls, environ: Mapping[str, str], labels: Mapping[str, str] = MappingProxyType({})) -> "Settings":
        """Read the settings from environment variables.

        A variable that is empty, or that the host did not fill in, counts as not set.

        Args:
            environ: The variables.
            labels: The words for variables that the settings file sets, by which a refusal names them.

        Raises:
            ConfigError: A value cannot be used. The message names the variable and what it accepts.
        """
        env = values.drop_empty_variables(environ)
        warnings: list[SettingWarning] = []
        given: dict[str, Any] = {}
        for name, variable in VARIABLES.items():
            if name in env:
                written = Written(labels.get(name, name), env[name], variable.default, env, warnings)
                given[variable.field] = variable.reader.read(written)
        if "api_key_file" in given:
            given["api_key"] = secret_values.read_key_file(given["api_key_file"])
        warnings += find_misnamed(env, VARIABLES)
        return cls(**given, warnings=tuple(warnings))

    @classmethod
    def from_env_leniently(
        cls, environ: Mapping[str, str], labels: Mapping[str, str] = MappingProxyType({})
    ) -> "tuple[Settings, list[str]]":
        """Return the settings without the values that cannot be used, and a sentence for each of these."""
        env, refused = dict(environ), list[str]()
        while True:
            try:
                return cls.from_env(env, labels), refused
            except ConfigError as error:
                refused.append(str(error))
                named = [name for name in env if _is_named(refused[-1], name, labels.get(name, name))]
                # An unrelated variable may happen to be called like a word of the sentence.
                for name in [name for name in named if name in VARIABLES] or named or list(env):
                    del env[name]

    @property
    def has_key(self) -> bool:
        """Return True if there is a key, which the system's keyring may have."""
        return self.api_key is not None or self.stored_key is not None

    def data_path(self) -> Path:
        """Return the folder of the database, the locks and the log."""
        if self.data_dir is not None:
            return self.data_dir
        import platformdirs  # not needed to answer `initialize`

        return Path(platformdirs.user_data_dir("agent-jobs", appauthor=False))


def _is_named(sentence: str, *words: str) -> bool:
    """Return True if a sentence names a variable, by one of these words for it."""
    return any(re.search(rf"\b{re.escape(word)}\b", sentence) for word in words)


_DECLARED = [
    variable._replace(field=each.name)
    for each in fields(Settings)
    if (variable := each.metadata.get("variable")) is not None
]
#: Each variable by its name, by its subject.
SUBJECTS: Mapping[str, Mapping[str, Variable]] = {
    subject: {variable.name: variable for variable in _DECLARED if variable.subject == subject}
    for subject in LISTED_SUBJECTS
}
#: Each variable by its name, subject by subject.
VARIABLES: Mapping[str, Variable] = {
    name: variable for variables in SUBJECTS.values() for name, variable in variables.items()
}
