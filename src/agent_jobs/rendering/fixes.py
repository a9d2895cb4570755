"""Word errors for one kind of reader, and define the fixes that are the same for every reader.

Each fix is defined once. If any reader can do it, it is in `FIXES`. If only the user can, it is in `USER_STEPS`: a
person reads the step, and a model reads that it should ask its user for it. If the readers need different words, each
face has its own.
"""

from collections.abc import Callable, Mapping

from agent_jobs.errors import (
    AccountError,
    AgentJobsError,
    Argument,
    BusyError,
    ConfigError,
    UnclearError,
    UnsentError,
    UpstreamError,
)

#: What any reader can do, by the code of the error.
FIXES: Mapping[str, str] = {
    # Values
    "duplicate_value": "Give it in {name} only.",
    "misspelt": "Did you mean {near!r}?",
    "no_json": "Use strings, numbers, lists and objects.",
    "not_a_choice": "Use one of {names}.",
    "not_strict": "Correct the schema, or leave strict out.",
    "not_supported": "Leave it out.",
    "options_differ": "Give {name} only.",
    "too_long": "Shorten it.",
    "server_database": "Try again.",
    # Starts
    "callback_refused": "Leave it out, or name an address with https:// on an allowed host.",
    "empty_prompt": "Say what the job is to do.",
    "key_for_several": "Start jobs with keys one by one.",
    "model_retired": "Use {successor}.",
    "prompt_too_long": "Shorten or split it.",
    "request_too_long": "Leave some of it out, or split it.",
    "too_many_functions": 'Name fewer of them, such as "{server}/get_*".',
    "too_many_prompts": "Start the others in another call.",
    # Costs
    "unbounded_files": "Send text instead.",
    "unbounded_history": "Start without the previous job.",
    "unbounded_input": "Leave it out.",
    # Files
    "ambiguous_file": "Name one of {paths}.",
    "binary_file": "Attach text, a PDF, or an image as PNG, JPEG, GIF or WebP.",
    "broken_file": "Make or download it again.",
    "empty_path": "Write paths or globs.",
    "file_too_large": "Attach a part of it.",
    "git_file": "Name a file outside .git.",
    "impossible_path": "Write a valid path.",
    "link_leaves_root": "Name a file below it.",
    "no_match": "Name one that exists.",
    "no_upload": 'Send the file with PUT /files/NAME to this server, and name the "upload:..." of its answer.',
    "not_a_file": "Name a regular file.",
    "nothing_attachable": "Name other files.",
    "outside_roots": "Name files below {folders}.",
    "secret_file": "Copy its harmless parts into another file.",
    "too_many_braces": "Write fewer braces.",
    "too_many_entries": "Name folders further down.",
    "too_many_files": "Name fewer.",
    "too_many_rules": "Name files instead of folders.",
    "unreadable_file": "Check its permissions, or name another file.",
    "upward_path": "Write the path without '..'.",
    # Jobs
    "ambiguous_job": "Write more of {ids}.",
    "answered_twice": "Answer each call once.",
    "history_purged": "Start again without it, and put its important parts into the prompt.",
    "job_purged": "If it is still needed, start it again.",
    "no_such_job": "The newest are {newest}.",
    "no_such_conversation": "Use true for a new one, or the id of one that an earlier job began.",
    "nothing_to_continue": "Start again without it.",
    "response_of_another": "Copy this job's id.",
    "unknown_call": "It asks for {calls}.",
    "uploads_deleted": "Start it again with the same prompt and files.",
    "unknown_response": (
        "Copy its id again, in full. One that was created within the last minute may not be found yet; then repeat "
        "this."
    ),
}
#: What only the user can do, as an imperative that follows "Ask the user to".
USER_STEPS: Mapping[str, str] = {
    # Settings and files of the user's
    "file_roots_gone": "set it to folders that exist",
    "keyring_locked": "unlock it, or store the key in a file with `{command}`",
    "key_not_deleted": "delete it by hand",
    "misspelt_entry": "write {near!r}",
    "callback_secrets": "write whsec_ and at least 24 bytes in base64 on each line",
    "no_callbacks": "set AGENT_JOBS_CALLBACK_HOSTS and AGENT_JOBS_CALLBACK_SECRET_FILE, or leave it out",
    "no_file_roots": "set AGENT_JOBS_FILE_ROOTS to the folders that may be read",
    "no_tool_servers": "set AGENT_JOBS_TOOLBOX to the file that lists them",
    "secret_not_allowed": "add {secret} to AGENT_JOBS_SECRETS",
    "stored_key_unusable": "run `{command}`",
    "tool_server_off": "switch it on in {path}",
    "unknown_entry": "use one of {names}",
    "unknown_price": "add it to the price table of AGENT_JOBS_PRICES",
    "unreadable_entry_file": "name a file that can be read",
    "unreadable_secrets": "name a file of text that this program may read",
    "unusable_certificates": "set SSL_CERT_FILE to a PEM file with certificates, or SSL_CERT_DIR to a folder of them",
    "unusable_proxy": "set HTTPS_PROXY or ALL_PROXY to an address such as http://HOST:PORT; SOCKS is not supported",
    "wrong_entry": "correct it",
    "wrong_entry_file": "correct the file",
    "owner_key_missing": (
        "have the operator put it into the folder of AGENT_JOBS_OWNER_KEYS_DIR, or name another with "
        "`agent-jobs owner set --key-ref`"
    ),
    "owner_name": "choose another name",
    "shared_id": "have the operator of the server set a key of their own with `agent-jobs owner set --key-ref`",
    # Settings that have no effect
    "key_in_settings_file": "remove {name} there, and run `agent-jobs key set`",
    "misnamed_setting": "rename it",
    "missing_settings_file": "correct it, or make the file",
    "no_such_program": "begin it with the path of a program",
    "unfilled_key": "set the variable where the host is started, or use AGENT_JOBS_API_KEY_FILE",
    "unknown_setting": "remove it",
    "unusable_target": "correct it",
    "unwritable_folder": "make {standing} a writable folder",
    "wrong_quotes": "quote it as for a shell",
    "wrong_secret": "correct it, since webhooks are not sent without it",
    # The database
    "database_damaged": "move it away, or set AGENT_JOBS_DATA_DIR to another folder",
    "database_locked": "close that program, then try again",
    "database_newer": "update agent-jobs, or set AGENT_JOBS_DATA_DIR to another folder",
    "job_moved": "set AGENT_JOBS_DATABASE_URL to that database",
    "jobs_in_use": "end these processes, then run the command again",
    "no_job_file": "name a jobs.db, or the folder that has it",
    "other_file_name": "move it into a folder of its own as jobs.db, and name that",
    "database_unusable": "make the folder writable, or set AGENT_JOBS_DATA_DIR to another",
    "disk_full": "free some space, then try again; no job is lost",
    "no_full_text_search": "use a Python whose SQLite has FTS5",
    "no_import_target": "set it to the address of that database",
    "no_postgres": "set it to the address of the PostgreSQL database, if there is one",
    "not_opened": "read the cause in its log",
    "postgres_address": "correct AGENT_JOBS_DATABASE_URL",
    "postgres_connections": "raise its max_connections, or lower AGENT_JOBS_POOL",
    "postgres_damaged": "update agent-jobs, or restore the database from a backup",
    "postgres_missing": "create it with createdb, or correct AGENT_JOBS_DATABASE_URL",
    "postgres_newer": "update agent-jobs, or set AGENT_JOBS_DATABASE_URL to another database",
    "postgres_not_installed": "install agent-jobs[team], or unset AGENT_JOBS_DATABASE_URL",
    "postgres_older": "run `agent-jobs db upgrade`",
    "postgres_read_only": "set AGENT_JOBS_DATABASE_URL to the server that accepts changes",
    "postgres_rights": "grant that user the right, or name another in AGENT_JOBS_DATABASE_URL",
    "postgres_unreachable": "start the server, or correct AGENT_JOBS_DATABASE_URL",
    "postgres_unusable": "read the cause in the log of the PostgreSQL server",
    "postgres_user": "correct them in AGENT_JOBS_DATABASE_URL or AGENT_JOBS_DATABASE_PASSWORD_FILE",
    # The provider
    "account_refused": "check the key, its permissions and the credit",
    "certificate_expired": (
        "check this machine's clock and OPENAI_BASE_URL; else the certificate must be renewed, there or in "
        "SSL_CERT_FILE"
    ),
    "certificate_host": "correct the host in OPENAI_BASE_URL",
    "certificate_untrusted": "set SSL_CERT_FILE to a PEM file with the certificate of its authority",
    "key_refused": "check OPENAI_API_KEY, then try again in 60 s",
    "network_down": "check the network; if only a proxy reaches the internet, set HTTPS_PROXY",
    "no_tls": "write http:// instead of https:// in OPENAI_BASE_URL, or another port",
    "proxy_password": "put name and password into {setting}: http://NAME:PASSWORD@{proxy}",
    "proxy_refused": "check OPENAI_BASE_URL and {setting}; list hosts that need no proxy in NO_PROXY",
    "proxy_unreachable": "correct {setting}, or name the host in NO_PROXY",
    "tls_failed": "check host and port in OPENAI_BASE_URL, the proxy (HTTPS_PROXY) and SSL_CERT_FILE",
    "wrong_address": "check host and port in OPENAI_BASE_URL; if only a proxy reaches the internet, set HTTPS_PROXY",
}
#: The code of the fix for an error of upstream's whose own code has none.
_CLASS_CODES: Mapping[type[UpstreamError], str] = {
    AccountError: "account_refused",
    BusyError: "upstream_busy",
    UnsentError: "upstream_busy",
    UnclearError: "upstream_busy",
}


class Voice:
    """The words for one kind of reader.

    Args:
        fixes: The fixes that only this reader gets, by code.
        write_step: Writes a step of the user's as a sentence.
        write_argument: Writes the name of an argument.
        pass_on: Words a mistake in a setting whose sentences address a person.
    """

    def __init__(
        self,
        fixes: Mapping[str, str],
        write_step: Callable[[str], str],
        write_argument: Callable[[Argument], str] = str,
        pass_on: Callable[[str], str] = str,
    ) -> None:
        self._templates = {**FIXES, **fixes}
        self._write_step = write_step
        self._write_argument = write_argument
        self._pass_on = pass_on

    def describe(self, error: AgentJobsError) -> str:
        """Return the problem, and then the fix for the reader."""
        text = " ".join(filter(None, (end_sentence(self.problem(error)), self.fix(error))))
        if isinstance(error, ConfigError) and not error.code:
            return self._pass_on(text)
        return text

    def problem(self, error: AgentJobsError) -> str:
        """Return the problem as one sentence."""
        if not error.data:
            return error.problem
        return error.problem.format_map(self._write_data(error))

    def fix(self, error: AgentJobsError) -> str:
        """Return what the reader can do about an error, as one sentence; empty if nothing is known."""
        code = self._find_code(error)
        data = self._write_data(error)
        if code in self._templates:
            return self._templates[code].format_map(data)
        if code in USER_STEPS:
            return self._write_step(USER_STEPS[code].format_map(data))
        inner = [self.fix(value) for value in error.data.values() if isinstance(value, AgentJobsError)]
        return next(iter(inner), "")

    def _find_code(self, error: AgentJobsError) -> str:
        if not isinstance(error, UpstreamError):
            return error.code
        known_codes = {*self._templates, *USER_STEPS}
        of_class = (code for kind, code in _CLASS_CODES.items() if isinstance(error, kind))
        return next((code for code in (error.fix, error.code, *of_class) if code in known_codes), "")

    def _write_data(self, error: AgentJobsError) -> Mapping[str, object]:
        return {name: self._write_value(value) for name, value in error.data.items()}

    def _write_value(self, value: object) -> object:
        match value:
            case AgentJobsError():
                return self.problem(value).rstrip(".")
            case Argument():
                return self._write_argument(value)
            case _:
                return value


def capitalize_step(step: str) -> str:
    """Return a step of the user's as a sentence for the user."""
    return f"{step[0].upper()}{step[1:]}."


def end_sentence(text: str) -> str:
    """Return a text with a mark at its end, so that another sentence can follow."""
    if text.endswith((".", "?", "!", "…")):
        return text
    return f"{text}."
