"""What a response holds, for readers: its outline, sources, items, files and reasoning.

Nothing here waits, does I/O or raises: upstream may leave a field out, send null or another type for it, and write half
a surrogate pair. Base64 and encrypted content are never told, only how much there was. Offsets and sizes are bytes of
UTF-8, and `output` is always the `output` of a response, as upstream sent it.
"""

import base64
import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Literal, cast
from urllib.parse import SplitResult, quote, unquote, unquote_to_bytes, urlsplit

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.response import JSON, Usage, items_of, mapping_of
from agent_jobs.rendering.paging import size

Entry = dict[str, Any]

#: What one entry may take of each free text in it.
LINE_CHARS, TITLE_CHARS, URL_CHARS, NAME_CHARS = 160, 120, 2_000, 80
FACT_CHARS = 600  # ids among them: some gateways' have 421 characters
HEADINGS = 1_000
REQUEST_BYTES = 4_000
#: Nobody's JSON is deeper, and what is could not be written again.
DEPTH = 40
#: So much without a space or a dot is neither language nor an id.
BLOB_CHARS = 500

# Outline.


def outline(text: str) -> list[Entry]:
    """The Markdown headings of a text that stand outside code, each with the byte offset of its line.

    At most HEADINGS of them, like `{"offset": 120, "level": 2, "title": "Costs"}`; only those marked by `#`.
    """
    return list(islice(_headings(text), HEADINGS))


#: A line that opens or closes code, or one that is a heading. In lists code is indented as deep as they are.
_MARKED = re.compile(
    r"^(?P<indent>[ \t]*)(?:(?P<fence>`{3,}|~{3,})(?P<info>.*)|(?P<marks>#{1,6})[ \t]+(?P<title>.*))$", re.M
)


def _headings(text: str) -> Iterator[Entry]:
    fence, read, offset = "", 0, 0
    for line in _MARKED.finditer(text):
        if mark := line["fence"]:
            if not fence:
                fence = "" if mark[0] == "`" and "`" in line["info"] else mark  # code within a line
            elif mark.startswith(fence) and not line["info"].strip():
                fence = ""
        elif not fence and len(line["indent"].expandtabs(4)) <= 3 and (title := _heading_title(line["title"])):
            offset += len(text[read : line.start()].encode("utf-8", "replace"))
            read = line.start()
            yield {"offset": offset, "level": len(line["marks"]), "title": title}


def _heading_title(title: str) -> str:
    bare = title.strip().rstrip("#")
    return _line(bare if not bare or bare[-1] in " \t" else title, TITLE_CHARS)


# Items.


def sources(output: object) -> list[Entry]:
    """What the text cites and the searches found, each once: the cited ones first, in the order of their citation.

    Like `{"url": "https://...", "title": "...", "cited": 2}`, or with `file_id` and `filename` (and `container_id`) for
    a file. `cited` counts the citations. URLs are told without tracking parameters and compared without fragment.
    """
    found: dict[str, Entry] = {}
    for annotation in _annotations(output):
        if annotation.get("type") != "file_path":
            _add_source(found, annotation, cited=1)
    for item in items_of(output):
        for source in items_of(mapping_of(item.get("action")).get("sources")):
            _add_source(found, source, cited=0)
    return list(found.values())


def items(output: object) -> list[Entry]:
    """A compact entry for each output item: its type, its status, and what it did, each text cut to one line."""
    return [_told(item) for item in items_of(output)]


def reasoning(output: object) -> str:
    """The summaries of the model's reasoning, or its reasoning itself from a server that shows it; else empty."""
    texts: list[str] = []
    for item in items_of(output):
        if item.get("type") == "reasoning":
            parts = items_of(item.get("summary")) or items_of(item.get("content"))
            texts += [_text(part.get("text")) for part in parts]
    return _clean("\n\n".join(text for text in texts if text))


def files(output: object) -> list[Entry]:
    """What a response made besides text, as descriptors.

    An image is `{"type": "image", "id": "ig_...", "media_type": "image/png", "bytes": 5120}`, or has a `url` where
    upstream keeps it; what the code interpreter wrote is a `container_file` or `file` with its ids and its name, or a
    `sandbox_file` that only the text links.
    """
    return [file for file, _ in files_with_data(output)]


def files_with_data(output: object) -> list[tuple[Entry, bytes | None]]:
    """Return what `files` does, each with its bytes where the response itself holds them."""
    images: list[tuple[Entry, bytes | None]] = []
    for item in items_of(output):
        if (data := image_data(item)) is not None:
            media_type = media_type_of(data) or _MEDIA_TYPES.get(_text(item.get("output_format")), "image/png")
            image = _facts({"type": "image", "id": item.get("id"), "media_type": media_type})
            images.append((image | {"bytes": len(data)}, data))
        images += [_code_image(url) for each in items_of(item.get("outputs")) if (url := _text(each.get("url")))]
    named: dict[str, Entry] = {}
    for annotation in _annotations(output):
        kind = _FILES.get(_text(annotation.get("type")))
        names = _facts({name: annotation.get(name) for name in _FILE_NAMES})
        if kind and names:
            named[str(names)] = {"type": kind, **names}
    told = {PurePosixPath(file.get("filename", "")).name for file in named.values()}
    linked = [file for file in _sandbox_files(output) if file["filename"] not in told]
    return [*images, *[(file, None) for file in [*named.values(), *linked]]]


#: A file that a text links in the container where the run had its code; nobody else can open it.
SANDBOX_LINK = re.compile(r"sandbox:(/[^\s()<>\[\]\"'`]+)")


def _sandbox_files(output: object) -> list[Entry]:
    """Return the files that the text links in a container, with the containers where they may be."""
    containers = dict.fromkeys(_text(item.get("container_id")) for item in items_of(output))
    where = ",".join(name for name in containers if name)
    links = [
        unquote(link).rstrip(".,;:*_")
        for item in items_of(output)
        for part in items_of(item.get("content"))
        for link in SANDBOX_LINK.findall(_text(part.get("text")))
    ]
    paths = {PurePosixPath(link).name: link for link in links}
    return [
        _facts({"type": "sandbox_file", "containers": where, "filename": name, "link": f"sandbox:{link}"})
        for name, link in paths.items()
        if name
    ]


def media_type_of(data: bytes) -> str:
    """Return what an image is by its bytes; an empty text for what is none that is known."""
    for begin, media_type in _MAGIC:
        if data.startswith(begin):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    text = data[:1_000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return (
        "image/svg+xml" if text.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in text else ""
    )


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
_FILES = {"container_file_citation": "container_file", "file_path": "file"}
_FILE_NAMES = ("container_id", "file_id", "filename")
_MEDIA_TYPES = {"webp": "image/webp", "jpeg": "image/jpeg", "gif": "image/gif", "svg": "image/svg+xml"}


def image_data(item: JSON) -> bytes | None:
    """The picture in an image_generation_call; None where there is none or it is not base64."""
    result = _text(item.get("result")) if item.get("type") == "image_generation_call" else ""
    try:
        return base64.b64decode("".join(result.rpartition(",")[2].split()), validate=True) or None
    except ValueError:
        return None


def _annotations(output: object) -> Iterator[JSON]:
    for item in items_of(output):
        for part in items_of(item.get("content")):
            yield from items_of(part.get("annotations"))


def _add_source(found: dict[str, Entry], source: JSON, *, cited: int) -> None:
    url = _clean(_text(source.get("url")).strip())
    if url and not _is_data(url):
        key, shown = _normalised(url)
        entry = found.setdefault(key, {"url": _cut(shown, URL_CHARS), "cited": 0})
    elif file := _facts({name: source.get(name) for name in _FILE_NAMES}):
        entry = found.setdefault(str(file), {**file, "cited": 0})
    else:
        return
    if title := _line(source.get("title"), TITLE_CHARS):
        entry.setdefault("title", title)
    entry["cited"] += cited


#: Parameters that say who sent the reader and not what is read.
_TRACKING = re.compile(r"(?:utm_\w+|gclid|dclid|fbclid|msclkid|srsltid|igshid|mc_[ce]id)(?:=|$)", re.I)
_PORTS = {"http": ":80", "https": ":443"}


def _normalised(url: str) -> tuple[str, str]:
    """What equal addresses have in common, and how this one is shown."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, url
    query = "&".join(pair for pair in parts.query.split("&") if not _TRACKING.match(pair))
    shown = parts._replace(query=query)
    route = parts.fragment if parts.fragment[:1] in ("/", "!") else ""  # the page of a page that is a program
    host = parts.netloc.lower().removesuffix(_PORTS.get(parts.scheme, ""))
    key = SplitResult(parts.scheme, host, parts.path or "/", query, route)
    return key.geturl(), shown.geturl()


#: Fields that say what an item did, and the names they are told by; the last one that is there wins.
_TOLD = {
    "status": "status",
    "phase": "phase",
    "server_label": "server",
    "name": "name",
    "action": "action",
    "query": "query",
    "queries": "query",
    "url": "url",
    "pattern": "pattern",
    "path": "path",
    "command": "command",
    "commands": "command",
    "code": "code",
    "arguments": "arguments",
    "input": "input",
    "revised_prompt": "prompt",
    "content": "text",
    "summary": "text",
    "output": "output",
    "outputs": "output",
    "error": "error",
}
_COUNTED = ("sources", "results", "tools", "actions")
#: Where a nested value keeps its words.
_SAYING = ("message", "content", "text", "refusal", "stdout", "stderr", "logs")


def _told(item: JSON) -> Entry:
    action = mapping_of(item.get("action")) or mapping_of(item.get("operation"))
    facts = {**item, **action, "action": action.get("type") or item.get("action")}
    if isinstance(item.get("arguments"), dict):
        facts["arguments"] = json.dumps(without_blobs(item["arguments"]), ensure_ascii=False)
    if item.get("type") == "program_output":  # elsewhere a result is an image
        facts["output"] = item.get("result")
    told = {"type": _line(item.get("type"), NAME_CHARS) or "unknown"}
    counts = {name: len(cast("list[Any]", facts[name])) for name in _COUNTED if isinstance(facts.get(name), list)}
    words = {label: line for name, label in _TOLD.items() if (line := _line(_words(facts.get(name)), LINE_CHARS))}
    return told | words | {name: count for name, count in counts.items() if count}


def _words(value: object, depth: int = 4) -> str:
    """The words in a text, a list of texts, or an object that keeps them under a name we know."""
    if isinstance(value, str) or not depth:
        return _text(value)
    if isinstance(value, list):
        words = [_words(each, depth - 1) for each in cast("list[object]", value)]
        return "; ".join(each for each in words if each)
    facts = mapping_of(value)
    words = [_words(facts.get(name), depth - 1) for name in _SAYING]
    return " ".join(each for each in words if each)


def _code_image(url: str) -> tuple[Entry, bytes | None]:
    if not _is_data(url):
        return {"type": "image", "url": _cut(_clean(url), URL_CHARS)}, None
    head, _, written = url.strip().partition(",")
    media_type, *parameters = head.partition(":")[2].split(";")
    entry = _facts({"type": "image", "media_type": media_type.strip().lower()})
    data = unquote_to_bytes(written)
    if parameters and parameters[-1].strip().lower() == "base64":
        whole = b"".join(data.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        try:
            data = base64.b64decode(whole + b"=" * (-len(whole) % 4), validate=True)
        except ValueError:
            return entry | {"bytes": len(whole) * 3 // 4}, None
    entry |= {"media_type": media_type_of(data)} if media_type_of(data) else {}
    return entry | {"bytes": len(data)}, data or None


# Whole responses, requests and jobs.

#: Fields that hold nothing a reader could read.
_BLOBS = {"encrypted_content", "partial_image_b64", "b64_json", "file_data"}
#: Two patterns: either begins with what can be searched for fast, their union does not.
_DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+=-]+)*;base64,[\w+/=%-]*", re.ASCII)
_BASE64 = re.compile(rf"(?<![\w+/-])[\w+/-]{{{BLOB_CHARS},}}=*", re.ASCII)


def without_blobs(response: JSON) -> dict[str, Any]:
    """The response with a note of its size, like `[5120 bytes not shown]`, for whatever is base64 or encrypted.

    Secrets of tools, which some servers echo, are masked as in `shown_request`.
    """
    return _bare(response, DEPTH)


def without_secrets(response: JSON) -> JSON:
    """The response with the secrets of its tools, which some servers echo, masked; all else as it came."""
    tools = response.get("tools")
    return {**response, "tools": _masked(tools, DEPTH)} if tools else response


def shown_request(body: JSON) -> dict[str, Any]:
    """A request as a reader may see it, in at most REQUEST_BYTES of JSON.

    Of secrets only the `${NAME}` is left that stands for them, or `***`; of addresses the host; of prompts and files
    how long they are. What is too long after that is a note of its size.
    """
    sent = {name: value for name, value in body.items() if not name.startswith("_")}  # the others are notes of ours
    shown = {_line(name, NAME_CHARS): _shown(name, value, "plain", DEPTH) for name, value in sent.items()}
    sizes = {name: size({name: value}) for name, value in shown.items()}
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if sum(sizes.values()) <= REQUEST_BYTES:
            break
        shown[name] = f"[{sizes[name]} bytes]"
        sizes[name] = size({name: shown[name]})
    return shown if sum(sizes.values()) <= REQUEST_BYTES else {"fields": len(body)}


def markdown(job: Job) -> str:
    """The Markdown file of a job: what it is in front (as YAML), its text unchanged, and its sources behind."""
    response = (job.output.response if job.output else None) or {}
    facts = {
        "title": job.title,
        "job_id": job.id,
        "status": job.status,
        "error": f"{job.error.code}: {job.error.message}" if job.error else None,
        "model": response.get("model") or job.turn.request.get("model"),
        "response_id": job.turn.response_id,
        "started": _time(job.created_at),
        "finished": _time(job.finished_at),
        "tokens": _tokens(job.usage),
    }
    front = [f"{name}: {json.dumps(line, ensure_ascii=False)}" for name, line in _facts(facts).items()]
    text = job.output.text if job.output else ""
    cited = [f"{number}. {_link(source)}" for number, source in enumerate(sources(response.get("output")), 1)]
    parts = ["\n".join(["---", *front, "---"]), text, "\n".join(["## Sources", "", *cited]) if cited else ""]
    return _clean("\n\n".join(part for part in parts if part) + "\n")


def _bare(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _without_base64(value)
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, dict | list) and not depth:
        return _DEEPER
    if isinstance(value, list):
        return [_bare(each, depth - 1) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    facts = cast("dict[str, Any]", value)
    blobs = _BLOBS | {"result"} if facts.get("type") == "image_generation_call" else _BLOBS
    return {_clean(name): _bare_field(name, each, blobs, depth - 1) for name, each in facts.items()}


def _bare_field(name: str, value: Any, blobs: set[str], depth: int) -> Any:
    if name in blobs and _text(value):
        return _note(value)
    return _shown(name, value, "masked", depth) if _SECRET.search(name) else _bare(value, depth)


_DEEPER = "[nested too deep]"
_SECRET = re.compile(
    r"headers?$|authorization|cookie|credential|secret|passw|api[_-]?key|^token$|(access|auth|bearer|refresh)[_-]?token",
    re.IGNORECASE,
)


def _masked(value: Any, depth: int) -> Any:
    if isinstance(value, dict | list) and not depth:
        return _DEEPER
    if isinstance(value, list):
        return [_masked(each, depth - 1) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    return {
        name: _shown(name, each, "masked", depth - 1) if _SECRET.search(name) else _masked(each, depth - 1)
        for name, each in cast("dict[str, Any]", value).items()
    }


_PLACEHOLDER = re.compile(r"\$\{\w+\}")
_PROMPTS = {"input", "instructions", "variables"}
#: What is no prompt within one.
_LABELS = {"type", "role", "status", "phase", "detail", "id", "call_id", "file_id", "filename", "name"}


def _shown(name: str, value: Any, how: Literal["plain", "sized", "masked"], depth: int) -> Any:
    """A value of a request without what its name says is a secret, a prompt or an address."""
    if _SECRET.search(name):
        how = "masked"
    elif name in _PROMPTS and how == "plain":
        how = "sized"
    if isinstance(value, dict | list) and not depth:
        return _DEEPER
    if isinstance(value, dict):
        facts = cast("dict[str, Any]", value)
        return {_line(key, NAME_CHARS): _shown(key, each, how, depth - 1) for key, each in facts.items()}
    if isinstance(value, list):
        return [_shown("", each, how, depth - 1) for each in cast("list[Any]", value)]
    if how == "masked" and value is not None and not isinstance(value, bool):
        return " ".join(_PLACEHOLDER.findall(_text(value))) or "***"
    if not isinstance(value, str):
        return _finite(value) if isinstance(value, float) else value
    if how == "sized" and name not in _LABELS:
        return f"[{len(value.encode('utf-8', 'replace'))} bytes]"
    return _host(value) if name.endswith("url") else _line(value, LINE_CHARS)


def _host(url: str) -> str:
    """The scheme and host of an address: keys hide in all that follows."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    return _line(f"{parts.scheme}://{parts.hostname}/…", TITLE_CHARS) if parts.hostname else "***"


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _tokens(usage: Usage | None) -> str | None:
    if usage is None:
        return None
    read = f"{usage.input_tokens} in ({usage.cached_tokens} cached)"
    counted = f"{read}, {usage.output_tokens} out ({usage.reasoning_tokens} reasoning)"
    return f"{counted}, and more that upstream did not count" if usage.partial else counted


def _link(source: Entry) -> str:
    url = source.get("url", "")
    name = next(source[field] for field in ("title", "filename", "url", "file_id", "container_id") if field in source)
    title = re.sub(r"([\\`*_\[\]<>])", r"\\\1", name)
    if not url.startswith(("http://", "https://")):
        return title
    target = re.sub(r"[\s<>\\\x00-\x1f]", lambda found: quote(found[0]), url)
    return f"[{title}](<{target}>)"


# Small texts.


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_data(url: str) -> bool:
    return url.lstrip()[:5].lower() == "data:"


def _facts(values: JSON) -> Entry:
    """The texts among these values, each as one line."""
    return {name: line for name, value in values.items() if (line := _line(value, FACT_CHARS))}


def _line(value: object, chars: int) -> str:
    """A text as one line without base64, cut and marked where it is longer; empty for what is no text."""
    return _cut(" ".join(_without_base64(_text(value)).split()), chars)


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _note(hidden: str) -> str:
    return f"[{len(hidden)} bytes not shown]"


def _without_base64(text: str) -> str:
    for pattern in (_DATA_URI, _BASE64):
        text = pattern.sub(lambda found: _note(found[0]), text)
    return _clean(text)


def _clean(text: str) -> str:
    """The text as it can be written: half a surrogate pair cannot."""
    return text.encode("utf-8", "replace").decode()


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
