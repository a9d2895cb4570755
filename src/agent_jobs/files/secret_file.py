"""Read a file with secrets that a variable names, or say why it cannot be read."""

from pathlib import Path

from agent_jobs.errors import ConfigError


def read_secret_file(variable: str, path: Path) -> str:
    """Return the text of a file with secrets.

    Args:
        variable: Names the file.
        path: The file.

    Raises:
        ConfigError: The file cannot be read. The sentence does not show what is in it.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problem = "is not text"
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        problem = f"cannot be read: {getattr(error, 'strerror', error)}"
    raise ConfigError(
        "{variable} names {path}, which {problem}.",
        "unreadable_secrets",
        variable=variable,
        path=path,
        problem=problem,
    )
