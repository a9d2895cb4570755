"""Read the file of NAME=VALUE lines that --env-file names. Pure, except for reading that file."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent_jobs.errors import ConfigError
from agent_jobs.files.text_file import read_text

_LINE = re.compile(
    r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<quote>[\"']?)(?P<value>[^\0]*?)(?P=quote)\s*"
)


def add_env_file(environ: Mapping[str, str], path: str) -> dict[str, str]:
    """Return the environment with the variables of a file; a variable that already has a value keeps it.

    Empty lines and lines that begin with # are ignored, as are `export ` before a name and one pair of quotes around
    a value. Nothing is expanded or unescaped, and a value ends with its line.

    Raises:
        ConfigError: The file cannot be read, or a line has another form. The message gives the line's number.
    """
    try:
        text = read_text(Path(path))
    except (OSError, ValueError):
        raise ConfigError(f"The file of --env-file cannot be read as text: {path!r}. Name one that exists.") from None
    added = dict(_read_assignments(text, path))
    return added | {name: value for name, value in environ.items() if value.strip() or name not in added}


def _read_assignments(text: str, path: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip()[:1] in ("", "#"):
            continue
        pair = _LINE.fullmatch(line)
        if pair is None:
            raise ConfigError(f"Line {number} of {path!r} is not NAME=VALUE. Correct it, or put # before it.")
        yield pair["name"], pair["value"]
