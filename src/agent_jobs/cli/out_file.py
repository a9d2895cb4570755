"""Write an answer into a file, all of it or nothing."""

import os
from pathlib import Path

import click

from agent_jobs.atomic_file import SHARED_MODE, replace_file, write_temporary_file
from agent_jobs.cli import terminal


def check_out_file(path: Path, *, may_overwrite: bool) -> None:
    """Check that a file can be written, before anything is paid for what goes into it.

    Raises:
        click.ClickException: It cannot be written, or exists and may not be overwritten.
    """
    folder, file = path.parent, path.resolve()
    if not folder.is_dir():
        raise click.ClickException(f"The folder {folder} does not exist, so nothing was sent. Create it first.")
    if file.is_dir():
        raise click.ClickException(f"{path} is a folder, so nothing was sent. Name a file in it.")
    if file.exists() and not file.is_file():
        raise click.ClickException(f"{path} is not a file that can be replaced, so nothing was sent. Name another one.")
    if file.exists() and not may_overwrite:
        raise click.ClickException(
            f"{path} exists, so nothing was sent. Use --force to overwrite it, or name another file."
        )
    if not os.access(file.parent, os.W_OK):
        raise click.ClickException(f"The folder {folder} cannot be written to, so nothing was sent. Name another one.")


def write_out_file(path: Path, data: bytes, *, may_overwrite: bool = True) -> None:
    """Write a file and say so. Readers see the old content or all of the new one.

    Raises:
        FileExistsError: Another program wrote the file meanwhile.
        OSError: It cannot be written.
    """
    try:
        _write_resolved_file(path.resolve(), data, may_overwrite=may_overwrite)
    except OSError as error:  # it names the temporary file
        raise OSError(error.errno, error.strerror, str(path)) from None
    click.echo(f"Wrote {terminal.format_size(len(data))} to {path}.", err=True)


def _write_resolved_file(file: Path, data: bytes, *, may_overwrite: bool) -> None:
    if file.exists() and not file.is_file():  # a device or a pipe cannot be replaced
        file.write_bytes(data)
    elif may_overwrite:
        replace_file(file, data)
    else:
        _write_new_file(file, data)


def _write_new_file(file: Path, data: bytes) -> None:
    """Write a new file.

    Raises:
        FileExistsError: It exists by now.
        OSError: It cannot be written.
    """
    temporary = write_temporary_file(file, data, mode=SHARED_MODE)
    try:
        os.link(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
