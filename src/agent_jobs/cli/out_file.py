"""The target of `--out`: a file is written in full or not at all, and replaced only with `--force`."""

import os
from pathlib import Path
from typing import Any

import click

from agent_jobs.files.atomic_file import SHARED_MODE, replace_file, write_temporary_file
from agent_jobs.text import human_size

#: The consequence of a refused `--out`: no job was started, or nothing was written.
NOT_SENT, NOT_WRITTEN = "nothing was sent", "nothing was written"

force_option = click.option("--force", is_flag=True, help="Let --out overwrite a file.")


class OutPath(click.Path):
    """A path to write to. None is `-`, which is stdout."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path.

        Raises:
            click.UsageError: It is empty.
        """
        if value == "":
            raise click.UsageError("--out needs a path, and this one is empty.", ctx)
        if value == "-":
            return self.choose_stdout(ctx)
        return super().convert(value, param, ctx)

    def choose_stdout(self, ctx: click.Context | None) -> None:
        """Accept `-`."""


class OutFolder(OutPath):
    """A folder to write to."""

    def choose_stdout(self, ctx: click.Context | None) -> None:
        """Refuse `-`, since files of a folder do not fit on stdout.

        Raises:
            click.UsageError: Always.
        """
        raise click.UsageError("--out needs a folder, and - is stdout. A folder of that name is ./-", ctx)


def check_out_file(path: Path | None, *, may_overwrite: bool, undone: str = NOT_WRITTEN) -> None:
    """Check that a file can be written, before anything is done for what goes into it. None is stdout.

    Raises:
        click.ClickException: It cannot be written, or exists and may not be overwritten.
    """
    if path is None:
        return
    folder, file = path.parent, path.resolve()
    _check_exists(folder, undone)
    if file.is_dir():
        raise click.ClickException(f"{path} is a folder, so {undone}. Name a file in it.")
    if file.exists():
        if not file.is_file():
            raise click.ClickException(f"{path} is not a file that can be replaced, so {undone}. Name another one.")
        if not may_overwrite:
            raise click.ClickException(
                f"{path} exists, so {undone}. Use --force to overwrite it, or name another file."
            )
    _check_is_writable(file.parent, folder, undone)


def check_out_folder(folder: Path) -> None:
    """Check that a folder can get files. If it does not exist, it can be made, but no folder above it.

    Raises:
        click.ClickException: It cannot.
    """
    if folder.is_dir():
        return _check_is_writable(folder, folder, NOT_WRITTEN)
    if folder.exists():
        raise click.ClickException(f"{folder} is a file, so {NOT_WRITTEN}. Name a folder.")
    _check_exists(folder.parent, NOT_WRITTEN)
    return _check_is_writable(folder.parent, folder.parent, NOT_WRITTEN)


def _check_exists(folder: Path, undone: str) -> None:
    if not folder.is_dir():
        raise click.ClickException(f"The folder {folder} does not exist, so {undone}. Create it first.")


def _check_is_writable(folder: Path, shown: Path, undone: str) -> None:
    if not os.access(folder, os.W_OK):
        raise click.ClickException(f"The folder {shown} cannot be written to, so {undone}. Name another one.")


def write_out_file(path: Path, data: bytes, *, may_overwrite: bool) -> None:
    """Write a file and say so. Readers see the old content or all of the new one.

    Raises:
        FileExistsError: Another program wrote the file in the meantime.
        OSError: It cannot be written.
    """
    write_whole_file(path, data, may_overwrite=may_overwrite)
    click.echo(f"Wrote {human_size(len(data))} to {path}.", err=True)


def write_whole_file(path: Path, data: bytes, *, may_overwrite: bool) -> None:
    """Write a file like `write_out_file`, without a word."""
    file = path.resolve()
    try:
        if may_overwrite:
            replace_file(file, data)
        else:
            _create_out_file(file, data)
    except OSError as error:  # it names the temporary file
        raise OSError(error.errno, error.strerror, str(path)) from None


def _create_out_file(file: Path, data: bytes) -> None:
    """Write a new file.

    Raises:
        FileExistsError: It exists by now.
        OSError: It cannot be written.
    """
    temporary = write_temporary_file(file, data, mode=SHARED_MODE)
    try:
        os.link(temporary, file)
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        file.touch(exist_ok=False)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
