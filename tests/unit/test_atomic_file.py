"""A file is written in full or not at all."""

import os
import stat
from pathlib import Path

import pytest

from agent_jobs.files.atomic_file import PRIVATE_MODE, replace_file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_file_has_the_mode_that_was_asked_for_less_the_umask(tmp_path: Path):
    umask = os.umask(0o027)
    try:
        replace_file(tmp_path / "shared", b"x")
        replace_file(tmp_path / "private", b"x", mode=PRIVATE_MODE)
    finally:
        os.umask(umask)
    assert (mode_of(tmp_path / "shared"), mode_of(tmp_path / "private")) == (0o640, 0o600)


def test_replaced_file_keeps_its_mode_and_leaves_nothing_beside_it(tmp_path: Path):
    path = tmp_path / ("n" * 255)
    path.write_bytes(b"old")
    path.chmod(0o604)
    replace_file(path, b"new", mode=PRIVATE_MODE)
    assert (path.read_bytes(), mode_of(path), os.listdir(tmp_path)) == (b"new", 0o604, [path.name])


def test_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path):
    with pytest.raises(OSError):
        replace_file(tmp_path / "missing" / "file", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        replace_file(tmp_path / "folder", b"x")
    assert os.listdir(tmp_path) == ["folder"]
