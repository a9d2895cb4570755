"""Read the value of one environment variable: a `Reader` for each kind of setting."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import SplitResult, urlsplit, urlunsplit

from agent_jobs.api_key import find_key_mistake
from agent_jobs.errors import ConfigError
from agent_jobs.text import ask_if_meant
from agent_jobs.text_file import BOM, open_text
from agent_jobs.validation import Kind, number, whole_number

KEY = "OPENAI_API_KEY"
KEY_FILE = "AGENT_JOBS_API_KEY_FILE"
KEY_FILE_CHARS = 8192  # longer than any key, so that a path of another file is found out early
MAX_COUNT = 9999  # jobs, streams or calls at once; more is a slip of the pen
MAX_BUDGET_USD = 1e9  # more is a slip of the pen
PATH_WORDS = "a path"  # what a relative path is accepted as, which the settings file makes absolute
SWITCH_VALUES = "one of 0, 1"
YES_OR_NO = "one of no, yes"
#: What people write for 0 and 1.
SWITCH_WORDS = {"no": "0", "off": "0", "false": "0", "yes": "1", "on": "1", "true": "1"}
#: Paths below a base URL, as documentation and consoles show them in full.
_ENDPOINT = re.compile(
    r"(?P<name>/(?:responses(?:/resp_[^/]*)?|(?:chat/)?completions|models|embeddings))/*$",
    re.I,
)
_DEPLOYMENT = re.compile(r"/openai/deployments/[^/]+/*$", re.I)  # of Azure, before its v1 API


class SecretStr:
    """A string that is shown only by `get_secret_value`. Pydantic's class would take a terminal too long to import."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Return the string itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        shown = ""
        if self._text:
            shown = "**********"
        return f"SecretStr({shown!r})"

    __str__ = __repr__


class Written(NamedTuple):
    """A variable as it is written, with the environment around it."""

    name: str  #: of the variable, or in the settings file
    text: str
    default: str
    env: Mapping[str, str]
    warnings: list[str]  #: a reader adds sentences about what is not as the user meant it

    def refuse(self, accepts: str, fix: str = "") -> NoReturn:
        """Raise the ConfigError of a value that cannot be used."""
        if not fix and self.default:
            fix = f"Without it, {self.default} is used."
        raise ConfigError(f"{self.name} accepts {accepts}. {fix or 'Correct it or remove it.'}")


class Reader:
    """A kind of setting. A plain class: a dataclass takes a millisecond of every start."""

    __slots__ = ("accepts", "empty", "join", "read")

    def __init__(
        self,
        accepts: str,
        read: Callable[[Written], Any],
        empty: Callable[[], Any] | None = None,
        *,
        join: Callable[[Iterable[str]], str] | None = None,
    ) -> None:
        """Make a reader.

        Args:
            accepts: Completes the sentence "NAME accepts ...".
            read: Returns the value, or raises a ConfigError that names the variable.
            empty: Returns the value without the variable, where that is neither a default nor None.
            join: Writes a list of the settings file as one text, for a setting with several values.
        """
        self.accepts = accepts
        self.read = read
        self.empty = empty
        self.join = join


def drop_empty_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are set to something.

    A reference that a host left as it stands sets nothing: Claude Desktop leaves one for a field that is empty.
    """
    stripped = {name: value.strip() for name, value in environ.items()}
    return {name: value for name, value in stripped.items() if value and (name == KEY or not _is_reference(value))}


def _is_reference(value: str) -> bool:
    return value.startswith("${") and re.fullmatch(r"\$\{[^{}]*\}", value) is not None


def choice(*values: str, words: Mapping[str, str] | None = None) -> Reader:
    """Return the reader of one of several words, in any case; `words` are other words for them."""
    accepts = f"one of {', '.join(values)}"

    def read(written: Written) -> str:
        given = written.text.lower()
        value = (words or {}).get(given, given)
        if value in values:
            return value
        return written.refuse(accepts, ask_if_meant(value, values))

    return Reader(accepts, read)


def switch() -> Reader:
    """Return the reader of 0 or 1."""
    one_of = choice("0", "1", words=SWITCH_WORDS)
    return Reader(one_of.accepts, lambda written: one_of.read(written) == "1")


def amount(kind: Kind[float], accepts: str, fix: str = "") -> Reader:
    """Return the reader of a number of this kind, with the words and the advice of its refusal."""

    def read(written: Written) -> float:
        try:
            value = float(written.text)
        except ValueError:
            written.refuse(accepts, fix)
        if not kind.fits(value):
            written.refuse(accepts, fix)
        return value

    return Reader(accepts, read)


def seconds(least: int, most: int) -> Reader:
    """Return the reader of a time span."""
    return amount(number(least, most), f"seconds from {least} to {most}")


def days(least: int, most: int, fix: str) -> Reader:
    """Return the reader of a number of days."""
    return amount(number(least, most), f"days from {least} to {most}", fix)


def dollars(fix: str) -> Reader:
    """Return the reader of an amount of money."""
    accepts = "an amount in USD above 0"
    return amount(Kind(accepts, lambda usd: 0 < usd < MAX_BUDGET_USD), accepts, fix)


def count(least: int = 1) -> Reader:
    """Return the reader of a whole number."""
    kind = whole_number(least, MAX_COUNT)

    def read(written: Written) -> int:
        value = _parse_count(written.text)
        if value is None or not kind.fits(value):
            written.refuse(kind.accepts)
        return value

    return Reader(kind.accepts, read)


def streams(automatic: int) -> Reader:
    """Return the reader of how many streams are read at once."""
    accepts = f"auto, never, or how many streams to read at once, up to {MAX_COUNT}"
    words = {"auto": automatic, "never": 0}

    def read(written: Written) -> int:
        given = written.text.lower()
        if given in words:
            return words[given]
        value = _parse_count(given)
        if value is None or value > MAX_COUNT:
            written.refuse(accepts)
        return value

    return Reader(accepts, read)


def _parse_count(text: str) -> int | None:
    """Return the whole number that a short text of digits says; None for anything else."""
    if text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_COUNT)):
        return int(text)
    return None


def anything(accepts: str) -> Reader:
    """Return the reader that accepts every string."""
    return Reader(accepts, lambda written: written.text)


def header(accepts: str) -> Reader:
    """Return the reader of a string that is sent as a header."""
    return Reader(accepts, lambda written: check_header(written.name, written.text))


def check_header(name: str, value: str) -> str:
    """Return the value if a header can carry it.

    Raises:
        ConfigError: It cannot. The sentence does not show the value.
    """
    if not (value.isascii() and value.isprintable()):
        raise ConfigError(
            f"{name} holds characters that no header can carry. Copy it again, without the surrounding text."
        )
    return value


def secret_names() -> Reader:
    """Return the reader of the names of secrets. One that is not set is empty, and refused where it is used."""
    accepts = "names of environment variables, separated by commas"

    def read(written: Written) -> Mapping[str, SecretStr]:
        names = [name.strip() for name in written.text.split(",") if name.strip()]
        if not names or not all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in names):
            written.refuse(accepts, "Write names there, never their values.")
        return {name: SecretStr(check_header(name, written.env.get(name, ""))) for name in names}

    return Reader(accepts, read, dict[str, SecretStr], join=",".join)


def owner_names() -> Reader:
    """Return the reader of the names of owners."""
    accepts = "names of owners, separated by commas"

    def read(written: Written) -> tuple[str, ...]:
        names = tuple(name.strip() for name in written.text.split(",") if name.strip())
        if not names or not all(name.isprintable() for name in names):
            return written.refuse(accepts)
        return names

    return Reader(accepts, read, tuple[str, ...], join=",".join)


def api_key() -> Reader:
    """Return the reader of the key. It is None if a file with the key is set, or if the host filled nothing in."""
    accepts = "the key alone"

    def read(written: Written) -> SecretStr | None:
        if KEY_FILE in written.env:
            return None  # the key comes from the file
        mistake = find_key_mistake(written.text)
        if mistake is None:
            return SecretStr(check_header(written.name, written.text))
        if mistake.is_unset:
            written.warnings.append(f"{written.name} {mistake.what}. {mistake.fix}")
            return None
        raise ConfigError(f"{written.name} accepts {accepts}, and this {mistake.what}. {mistake.fix}")

    return Reader(accepts, read)


def read_key_file(path: Path) -> SecretStr:
    """Return the key on the first line of a file.

    Raises:
        ConfigError: The file cannot be read, or its first line is no key. The sentence does not show the line.
    """
    line = _read_first_line(path)
    if not line:
        _refuse_key_file(path, "is empty. Put the key there.")
    if len(line) == KEY_FILE_CHARS:
        _refuse_key_file(path, "is longer than any key. Put the key there.")
    mistake = find_key_mistake(line)
    if mistake is None:
        return SecretStr(check_header(KEY_FILE, line))
    fix = "Put the key itself there." if mistake.is_unset else mistake.fix
    _refuse_key_file(path, f"{mistake.what}. {fix}")


def read_owner_key(folder: Path | None, key_ref: str, environ: Mapping[str, str]) -> str:
    """Return the key that a reference names: a file in a folder, or with `env:NAME` an environment variable.

    Raises:
        ConfigError: There is no such key.
    """
    kind, _, name = key_ref.rpartition(":")
    text = ""
    if kind == "env":
        text = environ.get(name, "").strip()
    elif folder is not None and key_ref == Path(key_ref).name and key_ref not in (".", ".."):
        with suppress(OSError, ConfigError):
            text = _read_first_line(folder / key_ref)
    if not text or find_key_mistake(text) is not None:
        raise ConfigError("The key {key_ref!r} of this owner is missing.", "owner_key_missing", key_ref=key_ref)
    return text


def _refuse_key_file(path: Path, fault: str) -> NoReturn:
    raise ConfigError(f"{KEY_FILE} names {path}, whose first line {fault}")


def _read_first_line(path: Path) -> str:
    """Return the first line of a file, at most `KEY_FILE_CHARS` of it."""
    try:
        with open_text(path) as file:
            line = file.readline(KEY_FILE_CHARS).lstrip(BOM).strip()
            if file.encoding != "utf-8" and not line.isascii():
                raise ValueError  # its first bytes were no mark
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{KEY_FILE} names {path}, which cannot be read ({reason}). Put the key there.") from None
    return line


def database_url() -> Reader:
    """Return the reader of the address of a PostgreSQL database. No refusal shows it: it may hold a password."""
    accepts = "the address of a PostgreSQL database, like postgresql://USER@HOST/NAME"

    def read(written: Written) -> SecretStr:
        try:
            parts = urlsplit(written.text)
            is_usable = parts.scheme in ("postgresql", "postgres") and parts.port != 0 and _has_clear_password(parts)
        except ValueError:
            is_usable = False
        if not is_usable:
            written.refuse(accepts, "In a password, write / as %2F, @ as %40, : as %3A and # as %23.")
        return SecretStr(written.text)

    return Reader(accepts, read)


def _has_clear_password(parts: SplitResult) -> bool:
    """Return False if a password may reach into what is read as the host, the path or the parameters."""
    return parts.netloc.count("@") <= 1 and not any("@" in part for part in parts[2:])


def hide_database_password(url: SecretStr | None) -> str | None:
    """Return the address of a database without its password and parameters."""
    if url is None:
        return None
    parts = urlsplit(url.get_secret_value())
    user, at, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return f"{parts.scheme}://{name}{at}{host}{parts.path}"


def read_password_file(path: Path) -> str:
    """Return the first line of a file with the password of a database.

    Raises:
        ConfigError: The file cannot be read. The sentence does not show what is in it.
    """
    try:
        with open_text(path) as file:
            return file.readline(KEY_FILE_CHARS).lstrip(BOM).rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(
            f"AGENT_JOBS_DATABASE_PASSWORD_FILE names {path}, which cannot be read ({reason}). Put the password there."
        ) from None


def path() -> Reader:
    """Return the reader of a path, which may be relative."""
    return Reader(PATH_WORDS, lambda written: _expand_user(written.name, written.text))


def existing_folder() -> Reader:
    """Return the reader of a folder that exists, whose path may be relative."""

    def read(written: Written) -> Path:
        folder = _expand_user(written.name, written.text)
        if not os.path.isdir(folder):
            written.refuse(PATH_WORDS, f"There is no folder {folder}. Name one that exists.")
        return folder

    return Reader(PATH_WORDS, read)


def absolute_path() -> Reader:
    """Return the reader of an absolute path."""
    accepts = "a path that starts with / or ~"

    def read(written: Written) -> Path:
        found = _expand_user(written.name, written.text)
        if not found.is_absolute():
            written.refuse(accepts, "A host starts this server in a folder of its own.")
        return found

    return Reader(accepts, read)


def output_folder() -> Reader:
    """Return the reader of an absolute path below which files are written; a warning says if they cannot be."""
    absolute = absolute_path()

    def read(written: Written) -> Path:
        folder = absolute.read(written)
        standing = next((each for each in (folder, *folder.parents) if os.path.exists(each)), None)
        if standing is not None and not (os.path.isdir(standing) and os.access(standing, os.W_OK | os.X_OK)):
            written.warnings.append(
                f"{written.name} names {folder}, which cannot be written to. Make {standing} a writable folder."
            )
        return folder

    return Reader(absolute.accepts, read)


def _expand_user(name: str, text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name} begins with a home folder that does not exist. Write the full path.") from None


def folders() -> Reader:
    """Return the reader of folders that exist, each once, in their order."""
    accepts = f"absolute folders, separated by {os.pathsep!r}"

    def read(written: Written) -> tuple[Path, ...]:
        parts = [part.strip() for part in written.text.split(os.pathsep) if part.strip()]
        found = [_expand_user(written.name, part) for part in parts]
        if not found:
            written.refuse(accepts)
        for folder in found:
            if not folder.is_absolute():
                written.refuse(accepts, "One of them is not absolute.")
            if not os.path.isdir(folder):
                raise ConfigError(f"{written.name} names {folder}, which is not a folder. Name folders that exist.")
        return tuple(dict.fromkeys(found))

    return Reader(accepts, read, tuple[Path, ...], join=os.pathsep.join)


def command() -> Reader:
    """Return the reader of a program and its arguments; with a warning in place of one that cannot be run.

    A command for finished jobs that does not work must not keep jobs from being started.
    """

    def read(written: Written) -> tuple[str, ...]:
        import shlex  # not needed where the variable is not set

        try:
            program, *arguments = shlex.split(written.text)
            program = os.path.expanduser(program)
        except ValueError as error:
            written.warnings.append(
                f"{written.name} is not run because of its quotes ({str(error).lower()}). Quote it as for a shell."
            )
            return ()
        if (reason := _find_program_fault(program, written.env.get("PATH"))) is not None:
            written.warnings.append(f"{written.name} is not run because {reason}. Begin it with the path of a program.")
            return ()
        return (program, *arguments)

    return Reader("a program and its arguments, quoted as for a shell", read, tuple[str, ...], join=_quote_words)


def _quote_words(words: Iterable[str]) -> str:
    import shlex  # not needed where the variable is not set

    return shlex.join(words)


def _find_program_fault(program: str, search_path: str | None) -> str | None:
    """Return why a program cannot be run, or None. It is not shown: it may be an address with a secret in it."""
    import shutil  # not needed where the variable is not set

    if os.path.dirname(program) and not os.path.isabs(program):
        return "its program is neither a name nor a path that starts with / or ~"
    if shutil.which(program, path=search_path) is None:
        return "its first word is not a program that can be found and run"
    return None


def base_url(example: str) -> Reader:
    """Return the reader of the address of an API."""
    accepts = "a web address"

    def read(written: Written) -> str:
        parts = split_web_address(written.text)
        if parts is None:
            written.refuse(accepts, f"Set it to something like {example}.")
        if "@" in parts.netloc:
            raise ConfigError(
                f"{written.name} holds a name or password, which would be sent instead of the key. Leave it out."
            )
        if ending := _ENDPOINT.search(parts.path):
            raise ConfigError(
                f"{written.name} ends in {ending['name'].lower()}, which agent-jobs adds: remove it, so that it is "
                f"{_without_endpoint(parts)}."
            )
        return written.text

    return Reader(accepts, read)


def split_web_address(url: str) -> SplitResult | None:
    """Return the parts of a web address; None if it is something else."""
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return None
    if parts.scheme in ("http", "https") and parts.hostname and has_port:
        return parts
    return None


def _without_endpoint(parts: SplitResult) -> str:
    """Return the address of an API from that of one of its endpoints, without what may be secret in its query."""
    path, query = parts.path, parts.query
    while ending := _ENDPOINT.search(path):
        path = path[: ending.start()]
    if _DEPLOYMENT.search(path):
        path, query = _DEPLOYMENT.sub("/openai/v1", path), ""  # versions by date are not for this path
    shown = "&".join(_redact_parameter(pair) for pair in query.split("&"))
    return urlunsplit((parts.scheme, parts.netloc, path.rstrip("/"), shown, ""))


def _redact_parameter(pair: str) -> str:
    if not pair or pair.startswith("api-version="):
        return pair
    return f"{pair.partition('=')[0]}=..."
