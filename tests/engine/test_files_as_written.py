"""Files whose names or bytes differ from what a model writes: the intended file is attached, never another one."""

import re
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import httpx2
import pytest
from hosts import hosting

from agent_jobs.attachments import gather
from agent_jobs.errors import RequestError
from agent_jobs.mcp_server.wording import MODEL
from agent_jobs.settings.settings import Settings

SCREENSHOT = "Screenshot 2026-11-29 at 9.41.05\u202fAM.txt"
CAFE, CAFE_APART = normalize("NFC", "café"), normalize("NFD", "café")


def write_files(top: Path, *paths: str) -> None:
    """Write files that hold their own path."""
    for path in paths:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(path)


def gather_names(top: Path, *patterns: str, upload: bool = False) -> list[str]:
    return [one.data.decode() for one in gather.gather_attachments(patterns, [top], upload=upload)]


def read_refusal(top: Path, *patterns: str, upload: bool = False) -> str:
    with pytest.raises(RequestError) as refused:
        gather.gather_attachments(patterns, [top], upload=upload)
    sentence = MODEL.describe(refused.value)
    assert sentence.isprintable()
    assert sentence.endswith((".", "?"))
    return sentence


# --- names


@pytest.mark.parametrize(
    ("there", "written"),
    [
        (SCREENSHOT, "Screenshot 2026-11-29 at 9.41.05 AM.txt"),
        (SCREENSHOT, "Screenshot 2026-11-29 at 9.41.05\u00a0AM.txt"),
        ("a\u00a0b.txt", "a b.txt"),
        ("a b.txt", "a\u3000b.txt"),
        ("a  b.txt", "a b.txt"),
        ("a b.txt", "a  b.txt"),
        ("a.txt ", "a.txt"),
        ("a.txt", "a.txt \n"),
        ("a.txt", "\u202aa.txt"),
        ("a\u200b.txt", "a.txt"),
        (f"{CAFE_APART}.txt", f"{CAFE}.txt"),
        (f"{CAFE}.txt", f"{CAFE_APART}.txt"),
        ("\u1100\u1161.txt", "\uac00.txt"),
        (f"{CAFE_APART}/x y/a.txt", f"{CAFE}/x\u00a0y/a.txt"),
        ("Résumé/a.txt", "resume\u0301/A.TXT".replace("resume\u0301", normalize("NFD", "Résumé"))),
        ("README.md", "Readme.md"),
        ("Docs/README.md", "docs/readme.md"),
        ("STRASSE.txt", "straße.txt"),
        (f"{CAFE_APART}/a.txt", CAFE),
        (f"{CAFE_APART}/a.txt", f"{CAFE}/"),
        (f"{CAFE_APART}/a.txt", f"{CAFE}/*.txt"),
        (f"x/{CAFE_APART}1.txt", f"**/{CAFE}*.txt"),
        (SCREENSHOT, "* AM.txt"),
        (f"{CAFE_APART}.txt", f"{{none,{CAFE}}}.txt"),
    ],
)
def test_name_of_the_same_appearance_is_found_in_every_component(tmp_path: Path, there: str, written: str):
    write_files(tmp_path, "other.txt", there)
    assert gather_names(tmp_path, written) == [there]
    assert gather_names(tmp_path, str(tmp_path / written)) == [there]
    assert gather_names(tmp_path, there, written) == [there]


@pytest.mark.parametrize("name", [f"{CAFE} x", "A b"])
def test_root_may_be_written_differently(tmp_path: Path, name: str):
    root = tmp_path / normalize("NFD", name.replace(" ", "\u00a0"))
    write_files(root, "a.txt")
    assert gather_names(root, str(tmp_path / name / "a.txt")) == ["a.txt"]
    assert gather_names(root, f" {tmp_path / name / 'a.txt'}\n") == ["a.txt"]
    write_files(tmp_path, f"{name}/a.txt")
    assert "outside" in read_refusal(root, str(tmp_path / name / "a.txt"))


@pytest.mark.parametrize(
    ("exact", "alike"),
    [(f"{CAFE}.txt", f"{CAFE_APART}.txt"), ("a b.txt", "a\u00a0b.txt"), ("a.txt", "A.txt"), ("d/a.txt", "D/a.txt")],
)
def test_exact_name_wins_over_a_similar_one(tmp_path: Path, exact: str, alike: str):
    write_files(tmp_path, exact, alike)
    assert gather_names(tmp_path, exact) == [exact]
    assert gather_names(tmp_path, alike) == [alike]
    assert gather_names(tmp_path, alike, exact) == [alike, exact]


def test_case_counts_if_two_names_differ_only_in_case(tmp_path: Path):
    write_files(tmp_path, "a\u00a0b.txt", "A b.txt")
    assert gather_names(tmp_path, "a  b.txt") == ["a\u00a0b.txt"]


@pytest.mark.parametrize(
    ("there", "written", "named"),
    [
        (("a\u00a0b.txt", "a\u202fb.txt"), "a b.txt", [r'"a\u00a0b.txt"', r'"a\u202fb.txt"']),
        ((f"{CAFE}  x", f"{CAFE_APART}  x"), f"{CAFE} x", [r"caf\u00e9  x", r"cafe\u0301  x"]),
        (("README.md", "ReadMe.md"), "readme.md", ['"README.md"', '"ReadMe.md"']),
        (("Docs/a.txt", "DOCS/a.txt"), "docs/a.txt", ['"Docs/a.txt"', '"DOCS/a.txt"']),
        (("Docs/a.txt", "DOCS/b.txt"), "docs/*.txt", ['"Docs"', '"DOCS"']),
    ],
)
def test_ambiguous_name_is_refused_with_the_candidates(
    tmp_path: Path, there: tuple[str, ...], written: str, named: list[str]
):
    write_files(tmp_path, *there)
    answer = read_refusal(tmp_path, written)
    for name in named:
        assert name in answer


def test_similar_names_below_two_roots_are_refused_with_their_roots(tmp_path: Path):
    write_files(tmp_path, "one/A.txt", "two/a.TXT")
    with pytest.raises(RequestError) as refused:
        gather.gather_attachments(["a.txt"], [tmp_path / "one", tmp_path / "two"])
    assert re.search(r"one/A\.txt.*two/a\.TXT", MODEL.describe(refused.value))


def test_similar_name_reaches_no_secret_and_no_outside_file(tmp_path: Path):
    root = tmp_path / "root"
    write_files(root, ".env", "in/a.txt", "up/x")
    write_files(tmp_path, "secret.txt")
    (root / "LINK.txt").symlink_to("../secret.txt")
    assert "keys or passwords" in read_refusal(root, ".ENV")
    assert "Nothing matches" in read_refusal(root, "link.txt")
    for written in ("\u200b.env", ".e\u200bnv"):
        assert "keys or passwords" in read_refusal(root, written)
    for written in (".. /secret.txt", "up/.\u200b./in/a.txt", " ..\u00a0/secret.txt", "\u200b", " "):
        read_refusal(root, written)


async def test_screenshot_with_a_special_space_reaches_upstream(settings: Settings, tmp_path: Path) -> None:
    write_files(tmp_path / "root", SCREENSHOT)
    async with hosting(replace(settings, file_roots=(tmp_path / "root",))) as host:
        started = await host.start(files=["screenshot 2026-11-29 at 9.41.05 am.txt"])
        address = f"{settings.base_url}/responses/{started['response_id']}/input_items"
        [item] = httpx2.get(address, headers={"Authorization": "Bearer test"}).json()["data"]
        message = await host.refused("agent_start", prompt="it", files=["Screenshot 2026-11-29 at 9.41.06 AM.txt"])
    spoken = SCREENSHOT.replace("\u202f", " ")
    assert item["content"][1]["text"] == f'<file name="{spoken}">\n{SCREENSHOT}\n</file>'
    assert f"Did you mean '{spoken}'?" in message


# --- bytes


def text_part(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "a.txt").write_bytes(data)
    [part] = gather.build_content_parts(gather.gather_attachments(["a.txt"], [tmp_path]))
    return part["text"]


def fence_text(text: str, remarks: str = "") -> str:
    return f'<file name="a.txt"{remarks}>\n{text}\n</file>'


GREETING = "Grüße aus Köln – 你好"


@pytest.mark.parametrize(
    ("data", "text", "remarks"),
    [
        ("“smart” – 5 €".encode("cp1252"), "“smart” – 5 €", ' encoding="guessed: windows-1252"'),
        (b"It\x92s caf\xe9", "It’s café", ' encoding="guessed: windows-1252"'),
        ("»CAFÉ« “é…”".encode("cp1252"), "»CAFÉ« “é…”", ' encoding="guessed: windows-1252"'),
        (b"caf\xe9 \xbd", "café ½", ' encoding="guessed: latin-1"'),
        (
            b"\x93a\x94 \x80 5\x81", "“a” € 5\ufffd",
            ' encoding="guessed: windows-1252" damaged="1 place is not windows-1252; U+FFFD stands there"',
        ),
        (GREETING.encode() + b"\xff", GREETING + "\ufffd", ' damaged="1 place is not utf-8; U+FFFD stands there"'),
        ("é ".encode() + b"\xff", "é \ufffd", ' damaged="1 place is not utf-8; U+FFFD stands there"'),
        (
            b"\x80" + GREETING.encode() + b"\xe9" + GREETING.encode()[:-1],
            f"\ufffd{GREETING}\ufffd{GREETING[:-1]}\ufffd",
            ' damaged="3 places are not utf-8; U+FFFD stands there"',
        ),
        (
            "\ufffd ".encode() + GREETING.encode() + b"\xc3", f"\ufffd {GREETING}\ufffd",
            ' damaged="1 place is not utf-8; U+FFFD stands there"',
        ),
        (b"\xef\xbb\xbfplain \xff", "plain \ufffd", ' damaged="1 place is not utf-8; U+FFFD stands there"'),
        (GREETING.encode("utf-16-le"), GREETING, ' encoding="guessed: utf-16-le"'),
        (GREETING.encode("utf-16-be"), GREETING, ' encoding="guessed: utf-16-be"'),
        ("a,b\r\n👍🏽".encode("utf-16-le"), "a,b\r\n👍🏽", ' encoding="guessed: utf-16-le"'),
        (GREETING.encode("utf-16"), GREETING, ""),
        (
            GREETING.encode("utf-16") + b"\x00", GREETING + "\ufffd",
            ' damaged="1 place is not utf-16-le; U+FFFD stands there"',
        ),
    ],
)  # fmt: skip
def test_text_is_decoded_and_lost_characters_are_reported(tmp_path: Path, data: bytes, text: str, remarks: str):
    assert text_part(tmp_path, data) == fence_text(text, remarks)


@pytest.mark.parametrize("data", [b"\x7fELF\x02\x01\x01\x00", b"\0\0\1\0" * 50, bytes(range(256)), b"\1\2\0\0" * 9])
def test_data_that_resembles_text_stays_binary(tmp_path: Path, data: bytes):
    (tmp_path / "a.txt").write_bytes(data)
    assert "binary" in read_refusal(tmp_path, "a.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_private_key_is_recognized_in_every_encoding(tmp_path: Path, encoding: str):
    (tmp_path / "a.txt").write_bytes("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n".encode(encoding))
    assert "keys or passwords" in read_refusal(tmp_path, "a.txt")


# --- empty


@pytest.mark.parametrize("upload", [False, True])
@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.pdf", b"", "a.pdf is empty"),
        ("A.PDF", b"", "A.PDF is empty"),
        ("a.pdf", b"<html>Sign in</html>", "a.pdf is not a PDF"),
        ("a.pdf", b" \r\n", "a.pdf is not a PDF"),
        ("a.pdf", bytes(4000), "a.pdf is not a PDF"),
        ("a.png", b"", "a.png is empty"),
        ("a.xlsx", b"", "a.xlsx is empty"),
    ],
)
def test_empty_document_is_refused_by_its_name(tmp_path: Path, name: str, data: bytes, why: str, upload: bool):
    (tmp_path / name).write_bytes(data)
    if not upload or name != "a.xlsx":
        assert why in read_refusal(tmp_path, name, upload=upload)
    write_files(tmp_path, "b.txt")
    assert gather_names(tmp_path, "*", upload=upload) == ["b.txt"]
