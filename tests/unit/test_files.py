"""A caller may attach only released files to a job: tests with real files, links, pipes and devices."""

import base64
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseInputMessageContentListParam
from pydantic import TypeAdapter

from agent_jobs.attachments import file_reader, gather
from agent_jobs.attachments import roots as roots_module
from agent_jobs.attachments.protected_files import RefusedFileError
from agent_jobs.attachments.roots import Root
from agent_jobs.errors import AgentJobsError, ConfigError, RequestError
from agent_jobs.mcp_server.wording import MODEL

INSIDE, OUTSIDE = b"inside", b"outside"


def write_tree(top: Path, tree: dict[str, bytes | str]) -> Path:
    """Write files by their relative paths. Bytes are the content of a file; a text is the target of a link."""
    for name, content in tree.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(content) if isinstance(content, str) else path.write_bytes(content)
    return top


def list_attached(patterns: Sequence[str], *roots: Path, upload: bool = False) -> list[str]:
    return [attachment.name for attachment in gather.gather_attachments(patterns, roots, upload=upload)]


def read_refusal(patterns: Sequence[str], *roots: Path, upload: bool = False) -> str:
    """Return the sentence of the refusal."""
    with pytest.raises(RequestError) as refused:
        gather.gather_attachments(patterns, roots, upload=upload)
    sentence = MODEL.describe(refused.value)
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence
    return sentence


def write_sparse_file(path: Path, size_bytes: int, head: bytes = b"") -> Path:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size_bytes)
    return path


# --- files that are attached


def test_attachment_without_a_root_is_refused_with_the_setting(tmp_path: Path):
    write_tree(tmp_path, {"a.txt": INSIDE})
    assert "AGENT_JOBS_FILE_ROOTS" in read_refusal([str(tmp_path / "a.txt")])
    assert gather.gather_attachments([], []) == []


def test_file_is_named_relative_to_its_root_or_absolutely_or_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_tree(tmp_path, {"src/a.py": INSIDE})
    monkeypatch.setenv("HOME", str(tmp_path))
    for pattern in ("src/a.py", "./src/a.py", "src//a.py", str(tmp_path / "src/a.py"), "~/src/a.py", "~/src/*.py"):
        [attachment] = gather.gather_attachments([pattern], [tmp_path])
        assert attachment == gather.Attachment("src/a.py", "text", "text/plain", INSIDE)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.py", ["a.py"]),
        ("**/*.py", ["a.py", "src/b.py", "src/deep/c.py"]),
        ("**", ["[id].tsx", "a.py", "src/b.md", "src/b.py", "src/deep/c.py"]),
        (".", ["[id].tsx", "a.py", "src/b.md", "src/b.py", "src/deep/c.py"]),
        ("src", ["src/b.md", "src/b.py", "src/deep/c.py"]),
        ("src/", ["src/b.md", "src/b.py", "src/deep/c.py"]),
        ("src/**", ["src/b.md", "src/b.py", "src/deep/c.py"]),
        ("src/*", ["src/b.md", "src/b.py"]),
        ("src/**/c.py", ["src/deep/c.py"]),
        ("**/deep/**/*.py", ["src/deep/c.py"]),
        ("s*/?.[mp][dy]", ["src/b.md", "src/b.py"]),
        ("src/*.{md,rs}", ["src/b.md"]),
        ("{src/{deep,none}/c,a}.py", ["src/deep/c.py", "a.py"]),
        ("src/{b,none}.md", ["src/b.md"]),
        ("[id].tsx", ["[id].tsx"]),
        (".github/*", [".github/ci.yml"]),
        (".github", [".github/ci.yml"]),
        (".*/*.yml", [".github/ci.yml"]),
    ],
)
def test_patterns_match_as_in_a_shell(tmp_path: Path, pattern: str, found: list[str]):
    tree = ["a.py", "src/b.py", "src/b.md", "src/deep/c.py", "[id].tsx", ".github/ci.yml", ".hidden/x.py", "src/.x.py"]
    write_tree(tmp_path, dict.fromkeys(tree, INSIDE))
    assert list_attached([pattern], tmp_path) == found


def test_each_file_comes_once_in_the_order_of_the_patterns(tmp_path: Path):
    write_tree(tmp_path, {"b.py": INSIDE, "a.py": INSIDE, "c.md": INSIDE, "link.py": "a.py"})
    assert list_attached(["c.md", "*.py", "a.py", "**", "link.py", str(tmp_path / "b.py")], tmp_path) == [
        "c.md",
        "a.py",
        "b.py",
    ]


def test_relative_path_is_searched_below_every_root_and_equal_names_get_a_prefix(tmp_path: Path):
    one, two = (
        write_tree(tmp_path / "one", {"a.txt": b"1", "b.txt": b"b"}),
        write_tree(tmp_path / "two", {"a.txt": b"2"}),
    )
    found = gather.gather_attachments(["a.txt", "b.txt"], [one, two])
    assert [(attachment.name, attachment.data) for attachment in found] == [
        ("one/a.txt", b"1"),
        ("two/a.txt", b"2"),
        ("b.txt", b"b"),
    ]
    assert list_attached(["**"], tmp_path, one) == ["one/a.txt", "one/b.txt", "two/a.txt"]


# --- files that are refused


@pytest.mark.parametrize(
    "pattern",
    ["../secret", "src/../../secret", "src/../a.txt", "/etc/passwd", "/", "/*", "/**/passwd", "/dev/zero", "/dev/stdin",
     "/proc/self/environ", "~/x", "{.,}{.,}/secret", "{/etc/passwd,../secret}", "**/../secret", ".."],
)  # fmt: skip
def test_no_path_leads_out_of_the_roots(tmp_path: Path, pattern: str):
    inside = write_tree(tmp_path, {"root/a.txt": INSIDE, "root/src/b.txt": INSIDE, "secret": OUTSIDE}) / "root"
    assert re.search("is outside of the folders|without", read_refusal([pattern], inside))


def test_path_out_of_the_roots_is_refused_the_same_whether_it_exists_or_not(tmp_path: Path):
    inside = write_tree(tmp_path, {"root/a.txt": INSIDE, "root/out": "..", "secret": OUTSIDE}) / "root"
    for way in (f"{tmp_path}/", "out/", "../"):
        there, not_there = read_refusal([f"{way}secret"], inside), read_refusal([f"{way}sesame"], inside)
        assert there.replace("secret", "sesame") == not_there


@pytest.mark.parametrize("pattern", ["file", "folder", "folder/secret", "folder/*", "far", "chain", "deep/er"])
def test_link_that_leaves_the_root_is_refused_by_name_and_left_out_of_globs(tmp_path: Path, pattern: str):
    inside = write_tree(
        tmp_path,
        {
            "secret": OUTSIDE, "away/secret": OUTSIDE, "root/a.txt": INSIDE, "root/file": "../secret",
            "root/folder": "../away", "root/far": "/etc/passwd", "root/chain": "file", "root/deep/er": "../chain",
        },
    ) / "root"  # fmt: skip
    assert "leaves" in read_refusal([pattern], inside)
    assert list_attached(["**"], inside) == ["a.txt"]


def test_links_that_stay_inside_are_followed_and_the_file_keeps_its_own_name(tmp_path: Path):
    write_tree(tmp_path, {"docs/a.md": INSIDE, "latest": "docs", "readme.md": "docs/a.md", "loop": "loop", "self": "."})
    for pattern in ("readme.md", "latest/a.md", "latest", "latest/*.md", "*.md", "self/self/docs/a.md", "**"):
        assert list_attached([pattern], tmp_path) == ["docs/a.md"]
    read_refusal(["loop"], tmp_path)


def test_root_may_itself_be_a_link(tmp_path: Path):
    write_tree(tmp_path, {"real/a.txt": INSIDE, "root": "real"})
    for pattern in ("a.txt", str(tmp_path / "root/a.txt"), str(tmp_path / "real/a.txt"), "*"):
        assert list_attached([pattern], tmp_path / "root") == ["a.txt"]


@pytest.mark.timeout(60)
def test_pipes_sockets_and_devices_are_refused_without_waiting_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_tree(tmp_path, {"a.txt": INSIDE, "link": "pipe"})
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # a socket's path is limited to 108 characters
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name in ("pipe", "socket", "link"):
            assert "regular file" in read_refusal([name], tmp_path)
        assert list_attached(["**"], tmp_path) == ["a.txt"]
    for name in ("zero", "null", "random", "tty"):
        assert "regular file" in read_refusal([name], Path("/dev"))
        assert "regular file" in read_refusal([f"/dev/{name}"], Path("/dev"))
    # This link leads to the stdin of this process.
    assert re.search("leaves|regular file", read_refusal(["stdin"], Path("/dev")))


@pytest.mark.timeout(60)
def test_pipe_in_place_of_a_file_blocks_nothing(tmp_path: Path):
    """Another process may replace the file between check and open, so the open itself must not block."""
    os.mkfifo(tmp_path / "pipe")
    descriptor = os.open(tmp_path / "pipe", roots_module._FILE)  # pyright: ignore[reportPrivateUsage]
    os.close(descriptor)


def test_folder_that_becomes_a_link_after_its_check_is_not_followed(tmp_path: Path):
    inside = (
        write_tree(tmp_path, {"away/a.txt": OUTSIDE, "root/folder": "../away", "root/file": "../away/a.txt"}) / "root"
    )
    for looked_at in (("folder", "a.txt"), ("file",)):
        with pytest.raises(RefusedFileError), Root.of(inside).open_file(looked_at):
            pass


def test_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere_outside(tmp_path: Path):
    inside = write_tree(tmp_path, {"away/a.txt": OUTSIDE, "root/in/a.txt": INSIDE, "root/out": "../away"}) / "root"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for old, new in (("in", "x"), ("out", "in"), ("in", "out"), ("x", "in")):
                os.rename(inside / old, inside / new)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for pattern in ("in/a.txt", "in/*", "*/a.txt") * 200:
            try:
                assert {attachment.data for attachment in gather.gather_attachments([pattern], [inside])} == {INSIDE}
            except RequestError:
                continue
    finally:
        done.set()
        swapping.join()


def test_missing_root_is_named_with_its_setting(tmp_path: Path):
    with pytest.raises(ConfigError, match="AGENT_JOBS_FILE_ROOTS"):
        gather.gather_attachments(["a.txt"], [tmp_path / "gone"])


@contextmanager
def unprivileged() -> Generator[Path]:
    """Yield a folder that every user may enter. Root becomes another user, since root can read every file."""
    top = Path(tempfile.mkdtemp())
    top.chmod(0o755)
    am_root = os.geteuid() == 0
    try:
        yield top
    finally:
        if am_root:
            os.seteuid(0)
        for path in [top, *top.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(top)


def test_unreadable_file_is_refused_by_name_and_left_out_of_globs():
    import pathspec  # imported now, since the test may lose the right to read the module

    assert pathspec
    with unprivileged() as top:
        write_tree(top, {"a.txt": INSIDE, "locked.txt": OUTSIDE, "closed/b.txt": OUTSIDE})
        (top / "locked.txt").chmod(0)
        (top / "closed").chmod(0)
        if os.geteuid() == 0:
            os.seteuid(65534)
        assert "Permission denied" in read_refusal(["locked.txt"], top)
        assert read_refusal(["closed/b.txt"], top)
        assert "1 unreadable" in read_refusal(["closed"], top)
        assert list_attached(["**"], top) == ["a.txt"]
        assert "1 unreadable" in read_refusal(["lock*"], top)


# --- limits


@pytest.mark.parametrize(
    ("name", "size_bytes", "head", "words"),
    [
        ("huge.txt", 2**30, b"", ["huge.txt", "1.0 GiB", "32.0 MiB"]),
        ("log.txt", 4 * 2**20 + 1, b"x" * 9000, ["log.txt", "4.0 MiB", "text"]),
        ("a.png", 21 * 2**20, b"\x89PNG\r\n\x1a\n", ["a.png", "21.0 MiB", "20.0 MiB", "image"]),
        ("a.pdf", 33 * 2**20, b"%PDF-1.7", ["a.pdf", "33.0 MiB", "32.0 MiB"]),
    ],
)
def test_file_that_is_too_large_is_refused_by_its_size(
    tmp_path: Path, name: str, size_bytes: int, head: bytes, words: list[str]
):
    write_sparse_file(tmp_path / name, size_bytes, head)
    for part in words:
        assert part in read_refusal([name], tmp_path)


def test_large_binary_in_a_glob_is_left_out_and_a_large_text_refused(tmp_path: Path):
    write_tree(tmp_path, {"a.txt": INSIDE})
    write_sparse_file(tmp_path / "disk.img", 2**30)
    assert list_attached(["*"], tmp_path) == ["a.txt"]
    (tmp_path / "log.txt").write_bytes(b"x" * (4 * 2**20 + 1))
    assert "log.txt" in read_refusal(["*"], tmp_path)


def test_all_files_together_have_a_limit_that_names_the_first_that_does_not_fit(tmp_path: Path):
    for number in range(2):
        write_sparse_file(tmp_path / f"{number}.pdf", 17 * 2**20, b"%PDF-1.7")
    assert list_attached(["0.pdf"], tmp_path) == ["0.pdf"]
    assert read_refusal(["*.pdf"], tmp_path).startswith("1.pdf has 17.0 MiB, which is more than the 15.0 MiB")


def test_more_files_than_a_job_accepts_are_refused(tmp_path: Path):
    write_tree(tmp_path, {f"{number}.txt": INSIDE for number in range(file_reader.MAX_FILES)})
    (tmp_path / "binary").write_bytes(b"\0")
    assert len(gather.gather_attachments(["*"], [tmp_path])) == file_reader.MAX_FILES
    (tmp_path / "more.txt").touch()
    assert str(file_reader.MAX_FILES) in read_refusal(["*"], tmp_path)


@pytest.mark.parametrize(("limit", "value"), [("WALK_ENTRIES", 5), ("WALK_S", -1.0)])
def test_pattern_with_too_many_entries_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
):
    write_tree(tmp_path, {f"{number}.txt": INSIDE for number in range(6)})
    monkeypatch.setattr(roots_module, limit, value)
    assert "further down" in read_refusal(["*"], tmp_path)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="this system has no /proc")
def test_file_that_says_it_is_empty_is_read_within_its_limit(monkeypatch: pytest.MonkeyPatch):
    [attachment] = gather.gather_attachments(["version"], [Path("/proc")])
    assert attachment.data == Path("/proc/version").read_bytes()
    monkeypatch.setattr(file_reader, "HEAD_BYTES", 5)
    monkeypatch.setattr(file_reader, "LIMIT_BYTES", {**file_reader.LIMIT_BYTES, "text": 10})
    assert "10 bytes" in read_refusal(["version"], Path("/proc"))


# --- kinds of files


@pytest.mark.parametrize(
    "data", [b"\x7fELF\x00\x01", b"PK\x03\x04\x00", b"a\0b", b"\x01\x80", b"\xff\xfe\x00", b"x" * 9000 + b"\0"]
)
def test_binary_file_is_refused_by_name_skipped_by_globs_and_data_for_the_code_interpreter(tmp_path: Path, data: bytes):
    write_tree(tmp_path, {"a.txt": INSIDE, "thing": data})
    assert "binary" in read_refusal(["thing"], tmp_path)
    assert "1 binary" in read_refusal(["th*"], tmp_path)
    assert list_attached(["*"], tmp_path) == ["a.txt"]
    assert list_attached(["*"], tmp_path, upload=True) == ["a.txt"]
    [attachment] = gather.gather_attachments(["thing"], [tmp_path], upload=True)
    assert (attachment.kind, attachment.data) == ("data", data)


def test_tables_and_archives_are_data_for_uploads_and_otherwise_text_or_binary(tmp_path: Path):
    write_tree(
        tmp_path, {"t.csv": b"a,b\n", "t.xlsx": b"PK\x03\x04\0", "t.parquet": b"PAR1\0", "t.py": b"1", "t.zip": b"PK\0"}
    )
    assert {one.name: one.kind for one in gather.gather_attachments(["*"], [tmp_path], upload=True)} == {
        "t.csv": "data", "t.parquet": "data", "t.py": "text", "t.xlsx": "data", "t.zip": "data",
    }  # fmt: skip
    assert {one.name: one.kind for one in gather.gather_attachments(["*"], [tmp_path])} == {
        "t.csv": "text",
        "t.py": "text",
    }
    write_sparse_file(tmp_path / "t.zip", 65 * 2**20)
    assert "64.0 MiB" in read_refusal(["t.zip"], tmp_path, upload=True)
    for number in range(3):
        write_sparse_file(tmp_path / f"{number}.zip", 50 * 2**20)
    assert read_refusal(["[0-2].zip"], tmp_path, upload=True).startswith("2.zip has 50.0 MiB")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        ("grüße 你好".encode(), "grüße 你好"),
        (b"\xef\xbb\xbfbom", "bom"),
        ("grüße".encode("utf-16"), "grüße"),
        (b"\xfe\xff" + "grüße".encode("utf-16-be"), "grüße"),
        ("grüße".encode("utf-32"), "grüße"),
        (b"gr\xfc\xdfe", "grüße"),
        (b"\x1b[31mred\r\n", "\x1b[31mred\r"),
    ],
)
def test_text_is_decoded(tmp_path: Path, data: bytes, text: str):
    (tmp_path / "a.txt").write_bytes(data)
    [part] = gather.build_content_parts(gather.gather_attachments(["a.txt"], [tmp_path]))
    guessed = ' encoding="guessed: latin-1"' if data == b"gr\xfc\xdfe" else ""
    assert part == {"type": "input_text", "text": f'<file name="a.txt"{guessed}>\n{text}\n</file>'}


@given(st.text(st.sampled_from("</file-23>FILE\n "), max_size=60))
def test_no_text_can_end_its_own_fence(text: str):
    one = gather.Attachment("a.txt", "text", "text/plain", text.encode())
    fenced = gather.build_content_parts([one])[0]["text"]
    tag = re.match(r"<([\w-]+) ", fenced)
    assert tag
    assert fenced.lower().count(f"</{tag[1]}>") == 1
    assert fenced.endswith(f"\n</{tag[1]}>")


def test_name_cannot_break_out_of_its_line(tmp_path: Path):
    write_tree(tmp_path, {'a">\n<file>\x1b\u202e.txt': INSIDE, os.fsdecode(b"b\xff.txt"): INSIDE})
    found = gather.gather_attachments(["*"], [tmp_path])
    assert [attachment.name for attachment in found] == ['a">?<file>??.txt', "b?.txt"]
    assert [part["text"] for part in gather.build_content_parts(found)] == [
        "<file name='a\"&gt;?&lt;file&gt;??.txt'>\ninside\n</file>",
        '<file name="b?.txt">\ninside\n</file>',
    ]


def build_png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))


JPEG = b"\xff\xd8\xff\xe0\x00\x04\0\0\xff\xc4\x00\x03\0\xff\xc2\x00\x0b\x08" + struct.pack(">HH", 64, 33) + b"\0" * 6
GIF = b"GIF89a" + struct.pack("<HH", 33, 64) + b"\0\0\0"
WEBP = {
    "VP8 ": b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 33, 64),
    "VP8L": b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", 32 | 63 << 14),
    "VP8X": b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0\x20\0\0\x3f\0\0",
}


@pytest.mark.parametrize(
    ("data", "media_type", "tokens"),
    [
        (build_png(33, 64), "image/png", 4),
        (build_png(1024, 1024), "image/png", 1024),
        (JPEG, "image/jpeg", 4),
        (GIF, "image/gif", 4),
        *((data, "image/webp", 4) for data in WEBP.values()),
        (JPEG[:6] + b"\0", "image/jpeg", 1536),
        (build_png(1, 1)[:12], "image/png", 1536),
        (b"\xff\xd8\xff\xda", "image/jpeg", 1536),
        (b"\xff\xd8\xff\xe0\x00\x02no frame", "image/jpeg", 1536),
        (b"RIFF\0\0\0\0WEBPANIM", "image/webp", 1536),
    ],
)
def test_image_is_recognized_by_its_content_named_and_counted_by_its_patches(
    tmp_path: Path, data: bytes, media_type: str, tokens: int
):
    (tmp_path / "shot.bin").write_bytes(data)
    found = gather.gather_attachments(["shot.bin"], [tmp_path])
    caption, image = gather.build_content_parts(found)
    assert caption == {"type": "input_text", "text": '<image name="shot.bin"/>'}
    assert image["image_url"] == f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    assert gather.estimate_tokens(found) == tokens


def test_pdf_goes_as_a_file_and_is_counted_by_its_pages(tmp_path: Path):
    pages = b"%PDF-1.7\n/Type /Pages /Type /Page /Type/Page\0"
    write_tree(tmp_path, {"a.pdf": pages, "b.pdf": b"\n\n%PDF-1.5\0" + b"x" * 60_000})
    first, second = gather.gather_attachments(["a.pdf", "b.pdf"], [tmp_path])
    data = base64.b64encode(pages).decode()
    assert gather.build_content_parts([first]) == [
        {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"}
    ]
    assert [gather.estimate_tokens([one]) for one in (first, second)] == [3000, 3000]


def test_parts_have_the_form_that_the_api_accepts(tmp_path: Path):
    write_tree(tmp_path, {"a.txt": INSIDE, "b.png": build_png(1, 1), "c.pdf": b"%PDF-1.7", "d.csv": b"1,2"})
    found = gather.gather_attachments(["*"], [tmp_path], upload=True)
    parts: Any = TypeAdapter(ResponseInputMessageContentListParam).validate_python(gather.build_content_parts(found))
    assert [part["type"] for part in parts] == ["input_text", "input_text", "input_image", "input_file"]
    assert gather.describe_attachments(found)[0] == {"name": "a.txt", "bytes": 6, "kind": "text"}
    assert [one["kind"] for one in gather.describe_attachments(found)] == ["text", "image", "pdf", "data"]
    assert gather.estimate_tokens(found[-1:]) == 0


@pytest.mark.parametrize(("text", "least", "most"), [("word " * 800, 800, 1100), ("你好世界" * 250, 900, 1100)])
def test_tokens_are_estimated_for_latin_and_for_chinese_text(text: str, least: int, most: int):
    assert least <= gather.estimate_tokens([gather.Attachment("a", "text", "text/plain", text.encode())]) <= most


# --- files that are left out


SECRETS = [".env", ".ENV", ".env.local", "app/.env.production", "id_rsa", "keys/id_ed25519", "server.pem", "a.key",
           ".netrc", ".npmrc", ".ssh/config", ".aws/credentials", "terraform.tfstate", ".git/config",
           "sub/.git/HEAD", "etc/shadow"]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_file_with_the_name_of_a_secret_is_refused_and_left_out(tmp_path: Path, name: str):
    write_tree(tmp_path, {"a.txt": INSIDE, name: OUTSIDE, "innocent.txt": name, ".env.example": b"KEY="})
    for pattern in (name, str(tmp_path / name), "innocent.txt"):
        assert "not attached" in read_refusal([pattern], tmp_path)
    every = ["**", "**/.*", ".*/**", "**/.*/**", "**/.git/*", ".example", ".env.ex*"]
    for pattern in every:
        try:
            assert all(one.data != OUTSIDE for one in gather.gather_attachments([pattern], [tmp_path]))
        except RequestError:
            continue
    assert list_attached(["**"], tmp_path) == ["a.txt"]
    assert list_attached([".env.example"], tmp_path) == [".env.example"]


BACKUPS = ["shadow-", "gshadow-", "master.passwd-", "shadow.bak", "shadow~", "id_rsa~", "id_rsa.bak", "id_rsa.bak-1",
           "id_rsa.bak1", "id_rsa.old", "ID_RSA.OLD", "id_rsa.orig", "id_rsa.save", "id_rsa.save.2", "id_rsa.1",
           "id_rsa.~1~", "id_rsa_old", "id_rsa-backup", "id_rsa copy", "id_rsa (1)", "id_rsa.swp", ".id_rsa.swp",
           ".id_rsa.swo", ".id_rsa.un~", "#id_rsa#", "#.env#", ".#.env", ".env.swp", ".env~", ".env-", ".env.bak",
           ".env_old", "server.pem.1", "server.pem~", "a.key.2024-01-01", "a.key.20240101T120000Z", "a.pem.bak.orig~",
           "credentials.json.bak", "credentials (1).json", "credentials.old.json", "Copy of credentials.json",
           ".netrc.save", ".pgpass-", "shadow.dpkg-old", "shadow.rpmsave", "a.kdbx.old", ".npmrc.bak~",
           ".ssh.bak/config", ".aws-old/x", ".credentials.json"]  # fmt: skip
NO_BACKUPS = ["notes.txt~", "notes-", "a.bak", "#notes#", ".notes.swp", "shadow.css", "shadow.css.bak", "shadow-dom.md",
              "shadows-", "box-shadow.1", "id_rsa.pub", "id_rsa.pub~", "id_rsa.pub.bak", "monkey~", "pem.bak",
              "key.old", "environment.bak", "credentials.md", "credentials.md~", "keys.txt.old", "1", "-", "~",
              "a (1).json", "old.ssh.md", ".env.example"]  # fmt: skip


@pytest.mark.parametrize("name", BACKUPS)
def test_backup_of_a_secret_file_is_secret(tmp_path: Path, name: str):
    write_tree(tmp_path, {"etc/a.txt": INSIDE, f"etc/{name}": OUTSIDE})
    assert "not attached" in read_refusal([f"etc/{name}"], tmp_path)
    assert list_attached(["etc"], tmp_path) == ["etc/a.txt"]


@pytest.mark.parametrize("name", NO_BACKUPS)
def test_backup_of_a_harmless_file_is_attached(tmp_path: Path, name: str):
    write_tree(tmp_path, {name: INSIDE})
    assert list_attached([str(tmp_path / name)], tmp_path) == [name]


def test_private_key_is_recognized_by_its_first_line_and_a_text_about_keys_is_not(tmp_path: Path):
    key = b"-----BEGIN OPENSSH PRIVATE KEY-----\nx"
    write_tree(tmp_path, {"deploy": key, "about.md": b"A key starts with\n" + key, "id_rsa.pub": INSIDE})
    assert "not attached" in read_refusal(["deploy"], tmp_path)
    assert list_attached(["*"], tmp_path) == ["about.md", "id_rsa.pub"]


def test_nested_gitignore_files_apply_to_globs_and_not_to_named_files(tmp_path: Path):
    write_tree(
        tmp_path,
        {
            ".gitignore": b"\xef\xbb\xbf*.log\r\n/build/\nnode_modules\n!\n[z-a]\n", "a.log": INSIDE, "a.txt": INSIDE,
            "build/x.txt": INSIDE, "sub/build/y.txt": INSIDE, "sub/.gitignore": b"!keep.log\nz.txt\n",
            "sub/keep.log": INSIDE, "sub/other.log": INSIDE, "sub/z.txt": INSIDE, "z.txt": INSIDE,
            "node_modules/p/i.js": INSIDE, "node_modules/p/.gitignore": b"j.js", "node_modules/p/j.js": INSIDE,
            "hidden.txt": "a.log", "linked.txt": "build/x.txt",
        },
    )  # fmt: skip
    assert list_attached(["**"], tmp_path) == ["a.txt", "sub/build/y.txt", "sub/keep.log", "z.txt"]
    assert list_attached(["sub"], tmp_path) == ["sub/build/y.txt", "sub/keep.log"]
    assert "ignored by .gitignore" in read_refusal(["*.log"], tmp_path)
    assert list_attached(["a.log", "build/x.txt", "sub/z.txt"], tmp_path) == ["a.log", "build/x.txt", "sub/z.txt"]
    assert list_attached(["node_modules"], tmp_path) == ["node_modules/p/i.js"]
    assert list_attached(["node_modules/p/*.js"], tmp_path) == ["node_modules/p/i.js"]


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, partial(os.symlink, "/etc/passwd")])
def test_gitignore_that_is_no_file_has_no_rules(tmp_path: Path, make: Callable[[Path], None]):
    write_tree(tmp_path, {"a.txt": INSIDE})
    make(tmp_path / ".gitignore")
    assert list_attached(["*"], tmp_path) == ["a.txt"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "rule",
    ["*a" * 30 + "b", "a*" * 30 + "b", "**/a/" * 20 + "b", "[a]*" * 20 + "b", "\\a*" * 20 + "b", "!" + "*a" * 30],
)
def test_hostile_gitignore_costs_no_time(tmp_path: Path, rule: str):
    write_tree(
        tmp_path, {".gitignore": b"nothing\n" + rule.encode(), "a" * 250: INSIDE, "c.txt": INSIDE, "a/a/a/a": INSIDE}
    )
    assert list_attached(["c.txt"], tmp_path) == ["c.txt"]
    try:
        assert "c.txt" in list_attached(["**"], tmp_path)
    except RequestError as refused:
        assert "ignored" in str(refused)


def test_gitignore_without_end_is_refused(tmp_path: Path):
    write_tree(tmp_path, {".gitignore": b"#" * 1_000_001, "a.txt": INSIDE})
    assert ".gitignore" in read_refusal(["*"], tmp_path)


RULES = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "/", "**/"]),
    st.sampled_from(["a", "b", "c", "*", "a*", "?", "[ab]", "a/b", "b/*", "a/**", "**/c", "a/**/c"]),
    st.sampled_from(["", "", "/"]),
)
TREES = st.sets(st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join), min_size=1, max_size=8)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@settings(deadline=None, max_examples=60)
@given(TREES, st.lists(RULES, max_size=4), st.lists(RULES, max_size=3))
def test_globs_skip_files_that_git_ignores(tree: set[str], rules: list[str], deeper: list[str]):
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        leaves = [name for name in tree if not any(other.startswith(f"{name}/") for other in tree)]
        write_tree(top, dict.fromkeys(leaves, INSIDE))
        (top / ".gitignore").write_text("\n".join(rules))
        if (top / "a").is_dir():
            (top / "a/.gitignore").write_text("\n".join(deeper))
        isolated = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        subprocess.run(["git", "init", "-q"], cwd=top, env=isolated, check=True)
        listed = subprocess.run(
            ["git", "ls-files", "--others", "--exclude-standard"],
            cwd=top,
            env=isolated,
            check=True,
            capture_output=True,
        ).stdout.decode()
        expected = [name for name in sorted(listed.split()) if not name.endswith(".gitignore")]
        try:
            found = list_attached(["**"], top)
        except RequestError:
            found = []
        assert sorted(found) == expected


# --- any pattern


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with many links and paths that lead out of it."""
    top = tmp_path_factory.mktemp("trap")
    return write_tree(
        top,
        {
            "secret": OUTSIDE, "away/secret": OUTSIDE, "away/in/a": OUTSIDE, "rootless/secret": OUTSIDE,
            "root/a": INSIDE, "root/in/a": INSIDE, "root/in/up": "../..", "root/up": "..", "root/out": "../away",
            "root/secret": "../secret", "root/top": "/", "root/abs": str(top), "root/back": "../root",
            "root/loop": "loop", "root/home": "~", "root/in/.env": OUTSIDE, "root/.git/config": OUTSIDE,
        },
    )  # fmt: skip


STEPS = ["..", ".", "", "a", "in", "up", "out", "top", "abs", "back", "loop", "secret", "away", "root", "rootless", "*",
         "**", "?*", "[a-z]*", "[!a]*", "{..,up}", "{a,secret}", "{.,}{.,}", "{/,x}", "{../,in/}", ".*", ".env", ".git",
         "config", "~", "\\..", "%2e%2e", "．．", "in/../up"]  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(["", "/", "TOP/", "TOP/root/", "TOP/root/../", "TOP/rootless/", "~/", "//", "./"]),
    st.lists(st.sampled_from(STEPS), min_size=1, max_size=5),
    st.booleans(),
)
def test_no_pattern_reads_a_byte_outside_of_the_root(trap: Path, start: str, steps: list[str], upload: bool):
    pattern = start.replace("TOP", str(trap)) + "/".join(steps)
    try:
        found = gather.gather_attachments([pattern], [trap / "root"], upload=upload)
    except RequestError as refused:
        assert "\n" not in str(refused)
    else:
        assert {attachment.data for attachment in found} == {INSIDE}


@settings(deadline=None)
@given(st.lists(st.text(max_size=300), min_size=1, max_size=2))
def test_every_pattern_is_answered_with_a_sentence(trap: Path, patterns: list[str]):
    try:
        found = gather.gather_attachments(patterns, [trap / "root"])
    except AgentJobsError as refused:
        assert str(refused).isprintable()
    else:
        assert {attachment.data for attachment in found} == {INSIDE}


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("src/mian.py", "Did you mean 'src/main.py'"),
        ("scr/main.py", "Did you mean 'src'"),
        ("src/*.rs", "src holds main.py, test.py."),
        ("empty", "nothing"),
        ("empty/*.py", "nothing that can be attached"),
        ("{" + ",".join(map(str, range(65))) + "}", "64 patterns"),
        ("{a,b}" * 7, "64 patterns"),
        ("x" * 5000, "Nothing matches"),
    ],
)
def test_pattern_without_a_match_is_refused_with_the_nearest_name(tmp_path: Path, pattern: str, hint: str):
    write_tree(tmp_path, {"src/main.py": INSIDE, "src/test.py": INSIDE, "src/.env": OUTSIDE, "src/id_rsa": OUTSIDE})
    (tmp_path / "empty").mkdir()
    answer = read_refusal([pattern], tmp_path)
    assert hint in answer
    assert len(answer) < 600
    assert "id_rsa" not in answer


def test_rules_of_git_are_not_loaded_before_they_are_needed():
    code = "import sys, agent_jobs.attachments.gather; assert 'pathspec' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
