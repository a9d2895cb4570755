"""Read settings that are paths, folders and commands."""

import os
from collections.abc import Iterable
from pathlib import Path

from agent_jobs.errors import ConfigError, SettingWarning
from agent_jobs.settings.values import PATH_WORDS, Reader, Written, split_list


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
                SettingWarning(
                    "{name} names {folder}, which cannot be written to.",
                    "unwritable_folder",
                    name=written.name,
                    folder=folder,
                    standing=standing,
                )
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
        found = [_expand_user(written.name, part) for part in split_list(written.text, os.pathsep)]
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
            problem, reason = "{name} is not run because of its quotes ({reason}).", str(error).lower()
            written.warnings.append(SettingWarning(problem, "wrong_quotes", name=written.name, reason=reason))
            return ()
        if (reason := _find_program_fault(program, written.env.get("PATH"))) is not None:
            problem = "{name} is not run because {reason}."
            written.warnings.append(SettingWarning(problem, "no_such_program", name=written.name, reason=reason))
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
