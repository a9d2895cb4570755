"""Read the value of one environment variable: a `Reader` for each kind of setting."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn
from urllib.parse import SplitResult, urlunsplit

from agent_jobs.errors import ConfigError, SettingWarning
from agent_jobs.owner_name import NAME_RULE, is_owner_name
from agent_jobs.text import ask_if_meant
from agent_jobs.validation import Kind, number, whole_number
from agent_jobs.web_address import split_web_address

KEY = "OPENAI_API_KEY"
MAX_COUNT = 9999  # jobs, streams or calls at once; more is a slip of the pen
MAX_BUDGET_USD = 1e9  # more is a slip of the pen
PATH_WORDS = "a path"  # accepts relative paths, which the settings file makes absolute
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
    warnings: list[SettingWarning]  #: a reader adds what does not work as the user meant

    def refuse(self, accepts: str, fix: str = "") -> NoReturn:
        """Raise the ConfigError of a value that cannot be used."""
        usual_fix = "Correct it or remove it."
        if self.default:
            usual_fix = f"Without it, {self.default} is used."
        raise ConfigError(f"{self.name} accepts {accepts}. {fix or usual_fix}")


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

    A reference that a host left unchanged sets nothing: Claude Desktop leaves one for a field that is empty.
    """
    return {
        name: text
        for name, value in environ.items()
        if (text := value.strip()) and (name == KEY or not _is_reference(text))
    }


def _is_reference(value: str) -> bool:
    return re.fullmatch(r"\$\{[^{}]*\}", value) is not None


def split_list(text: str, separator: str = ",") -> list[str]:
    """Return the words of a list, without empty ones and the spaces around each."""
    return [word.strip() for word in text.split(separator) if word.strip()]


def choice(*values: str, words: Mapping[str, str] = {}) -> Reader:
    """Return the reader of one of several words, in any case; `words` are other words for them."""
    accepts = f"one of {', '.join(values)}"

    def read(written: Written) -> str:
        given = written.text.lower()
        value = words.get(given, given)
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
        with suppress(ValueError):
            value = float(written.text)
            if kind.fits(value):
                return value
        return written.refuse(accepts, fix)

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

    def read(written: Written) -> int | None:
        value = parse_count(written.text)
        if not kind.fits(value):
            written.refuse(kind.accepts)
        return value

    return Reader(kind.accepts, read)


def streams(automatic: int) -> Reader:
    """Return the reader of how many streams are read at once."""
    accepts = f"auto, never, or how many streams to read at once, up to {MAX_COUNT}"
    words = {"auto": automatic, "never": 0}

    def read(written: Written) -> int:
        given = written.text.lower()
        value = words.get(given, parse_count(given))
        if value is None:
            written.refuse(accepts)
        return value

    return Reader(accepts, read)


def parse_count(text: str, most: int = MAX_COUNT) -> int | None:
    """Return the whole number from 0 to `most` that a text of digits says; None for anything else."""
    digits = len(str(most))
    if re.fullmatch(rf"[0-9]{{1,{digits}}}", text) and int(text) <= most:
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


def owner_names() -> Reader:
    """Return the reader of the names of owners."""
    accepts = "names of owners, separated by commas"

    def read(written: Written) -> tuple[str, ...]:
        names = tuple(split_list(written.text))
        if not names or not all(map(is_owner_name, names)):
            return written.refuse(accepts, NAME_RULE)
        return names

    return Reader(accepts, read, tuple[str, ...], join=",".join)


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


def _without_endpoint(parts: SplitResult) -> str:
    """Return the address of an API from that of one of its endpoints, without secrets in its query."""
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
