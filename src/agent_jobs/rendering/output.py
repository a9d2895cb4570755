"""Read the output of a response: its sources, items, files and reasoning.

These functions do no I/O and never raise: a field from upstream may be missing, null or of another type. The
argument `output` is always the `output` of a response.
"""

import base64
import json
import re
from itertools import chain
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import SplitResult, unquote, unquote_to_bytes, urlsplit

from agent_jobs.jobs.response import JSON, items_of, mapping_of, string_of
from agent_jobs.rendering.redaction import hide_blobs
from agent_jobs.rendering.short_lines import (
    LINE_CHARS,
    NAME_CHARS,
    TITLE_CHARS,
    URL_CHARS,
    Entry,
    collect_lines,
    shorten_to_line,
)
from agent_jobs.text import truncate, valid_unicode

#: A file that a text links in the container where the run had its code. No reader can open it there.
SANDBOX_LINK = re.compile(r"sandbox:(/[^\s()<>\[\]\"'`]+)")
#: Punctuation that follows a link in a sentence.
_AFTER_LINK = ".,;:*_"

#: Beginnings of images, as patterns of their bytes. An SVG may begin with other XML than its own element.
_IMAGE_STARTS = (
    (rb"(?si:[\xef\xbb\xbf \t\r\n]*(?=<svg|<\?xml|<!doctype svg|<!--).*<svg)", "image/svg+xml"),
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"BM", "image/bmp"),
    (rb"II\*\0|MM\0\*", "image/tiff"),
    (rb"(?s:RIFF.{4}WEBP)", "image/webp"),
    (rb"(?s:.{4}ftypavi[fs])", "image/avif"),
)
_SVG_SEARCH_BYTES = 1_000
_MEDIA_TYPES = {"webp": "image/webp", "jpeg": "image/jpeg", "gif": "image/gif", "svg": "image/svg+xml"}

#: By the type of its annotation: the type of a file's entry.
_FILE_TYPES = {"container_file_citation": "container_file", "file_path": "file"}
_FILE_NAMES = ("container_id", "file_id", "filename")

#: Parameters of an address that identify the sender of the reader.
_TRACKING = re.compile(r"(?:utm_\w+|gclid|dclid|fbclid|msclkid|srsltid|igshid|mc_[ce]id)(?:=|$)", re.I)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

#: Fields that say what an item did, and their names in its entry. The last one that is there wins.
_ITEM_FIELDS = {
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
#: Lists that an entry shows only by their length.
_COUNTED_FIELDS = ("sources", "results", "tools", "actions")
#: Fields in which a nested value keeps its text.
_TEXT_FIELDS = ("message", "content", "text", "refusal", "stdout", "stderr", "logs")
MAX_TEXT_DEPTH = 4


def find_sources(output: object) -> list[Entry]:
    """Return the sources that the text cites and the searches found, each once.

    The cited ones come first, in the order of their citation. An entry is like `{"url": "https://...", "title": "...",
    "cited": 2}`; a file has `file_id` and `filename`, and maybe `container_id`. `cited` counts the citations. URLs are
    without tracking parameters, and are compared without their fragment.
    """
    found: dict[str, Entry] = {}
    for annotation in _list_annotations(output):
        if annotation.get("type") != "file_path":
            add_source(found, annotation, cited=1)
    searched = (items_of(mapping_of(item.get("action")).get("sources")) for item in items_of(output))
    for source in chain.from_iterable(searched):
        add_source(found, source, cited=0)
    return list(found.values())


def list_items(output: object) -> list[Entry]:
    """Return a compact entry for each output item: its type, its status and its details, each text as one line."""
    return list(map(_summarize_item, items_of(output)))


def join_reasoning(output: object) -> str:
    """Return the summaries of the model's reasoning, or the reasoning itself if the server shows it; else empty."""
    parts = chain.from_iterable(
        items_of(item.get("summary")) or items_of(item.get("content"))
        for item in items_of(output)
        if item.get("type") == "reasoning"
    )
    texts = [string_of(part.get("text")) for part in parts]
    return valid_unicode("\n\n".join(filter(None, texts)))


def list_files(output: object) -> list[Entry]:
    """Return a descriptor for each file that a response made besides its text.

    An image is `{"type": "image", "id": "ig_...", "media_type": "image/png", "bytes": 5120}`, or has a `url` if
    upstream keeps it. A file of the code interpreter is a `container_file` or `file` with its ids and its name. It is a
    `sandbox_file` if only the text links it.
    """
    return [file for file, _ in list_files_with_data(output)]


def list_files_with_data(output: object) -> list[tuple[Entry, bytes | None]]:
    """Return the descriptors of `list_files`, each with its bytes if the response itself holds them."""
    named = _find_named_files(output)
    known_names = {PurePosixPath(file.get("filename", "")).name for file in named}
    linked = [file for file in _find_sandbox_files(output) if file["filename"] not in known_names]
    return [*_find_images(output), *((file, None) for file in [*named, *linked])]


def detect_media_type(data: bytes) -> str:
    """Return the media type of an image by its bytes; empty if they are no known image."""
    beginning = data[:_SVG_SEARCH_BYTES]
    return next((media_type for start, media_type in _IMAGE_STARTS if re.match(start, beginning)), "")


def decode_image(item: JSON) -> bytes | None:
    """Return the image of an image_generation_call; None if there is none or it is not base64."""
    if item.get("type") != "image_generation_call":
        return None
    encoded = "".join(string_of(item.get("result")).rpartition(",")[2].split())
    try:
        return base64.b64decode(encoded, validate=True) or None
    except ValueError:
        return None


def _find_images(output: object) -> list[tuple[Entry, bytes | None]]:
    """Return the images that the model made or its code drew."""
    images: list[tuple[Entry, bytes | None]] = []
    for item in items_of(output):
        data = decode_image(item)
        if data is not None:
            images.append((_describe_image(item, data), data))
        urls = (string_of(each.get("url")) for each in items_of(item.get("outputs")))
        images += map(_read_code_image, filter(None, urls))
    return images


def _describe_image(item: JSON, data: bytes) -> Entry:
    declared = _MEDIA_TYPES.get(string_of(item.get("output_format")), "image/png")
    facts = {"type": "image", "id": item.get("id"), "media_type": detect_media_type(data) or declared}
    return collect_lines(facts) | {"bytes": len(data)}


def _read_code_image(url: str) -> tuple[Entry, bytes | None]:
    """Return the entry of an image that code drew, and its bytes if the address itself has them."""
    if not _is_data_url(url):
        return {"type": "image", "url": truncate(valid_unicode(url), URL_CHARS)}, None
    head, _, payload = url.strip().partition(",")
    declared = head.partition(":")[2].partition(";")[0]
    entry = collect_lines({"type": "image", "media_type": declared.strip().lower()})
    data = unquote_to_bytes(payload)
    if head.rpartition(";")[2].strip().lower() == "base64":
        digits = b"".join(data.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        try:
            data = base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
        except ValueError:
            return entry | {"bytes": len(digits) * 3 // 4}, None
    if detected := detect_media_type(data):
        entry["media_type"] = detected
    return entry | {"bytes": len(data)}, data or None


def _find_named_files(output: object) -> list[Entry]:
    """Return the files that annotations name, each once."""
    named: dict[str, Entry] = {}
    for annotation in _list_annotations(output):
        kind = _FILE_TYPES.get(string_of(annotation.get("type")))
        names = _read_file_names(annotation)
        if kind and names:
            named[str(names)] = {"type": kind, **names}
    return list(named.values())


def _find_sandbox_files(output: object) -> list[Entry]:
    """Return the files that the text links in a container, with the containers that may hold them."""
    containers = dict.fromkeys(string_of(item.get("container_id")) for item in items_of(output))
    text = "\n".join(string_of(part.get("text")) for part in list_parts(output))
    links = [unquote(link).rstrip(_AFTER_LINK) for link in SANDBOX_LINK.findall(text)]
    common = {"type": "sandbox_file", "containers": ",".join(filter(None, containers))}
    paths = {PurePosixPath(link).name: link for link in links}
    return [
        collect_lines({**common, "filename": name, "link": f"sandbox:{link}"}) for name, link in paths.items() if name
    ]


def list_parts(output: object) -> list[JSON]:
    """Return the parts of all messages."""
    return [part for item in items_of(output) for part in items_of(item.get("content"))]


def _list_annotations(output: object) -> list[JSON]:
    return [annotation for part in list_parts(output) for annotation in items_of(part.get("annotations"))]


def _read_file_names(values: JSON) -> Entry:
    return collect_lines({name: values.get(name) for name in _FILE_NAMES})


def add_source(found: dict[str, Entry], source: JSON, *, cited: int) -> str:
    """Add a source to those that were found, or count one of them; return its key, empty if it is no source."""
    url = valid_unicode(string_of(source.get("url")).strip())
    if url and not _is_data_url(url):
        key, shown_url = _normalize_url(url)
        entry = found.setdefault(key, {"url": truncate(shown_url, URL_CHARS), "cited": 0})
    elif file := _read_file_names(source):
        key = str(file)
        entry = found.setdefault(key, {**file, "cited": 0})
    else:
        return ""
    if title := shorten_to_line(source.get("title"), TITLE_CHARS):
        entry.setdefault("title", title)
    entry["cited"] += cited
    return key


def _normalize_url(url: str) -> tuple[str, str]:
    """Return the form in which addresses are compared, and the form in which this one is shown."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, url
    query = "&".join(pair for pair in parts.query.split("&") if not _TRACKING.match(pair))
    fragment = ""
    if parts.fragment[:1] in ("/", "!"):  # the route of a single-page application
        fragment = parts.fragment
    host = parts.netloc.lower().removesuffix(_DEFAULT_PORTS.get(parts.scheme, ""))
    key = SplitResult(parts.scheme, host, parts.path or "/", query, fragment)
    return key.geturl(), parts._replace(query=query).geturl()


def _summarize_item(item: JSON) -> Entry:
    facts = _collect_item_facts(item)
    entry: Entry = {"type": shorten_to_line(item.get("type"), NAME_CHARS) or "unknown"}
    for name, label in _ITEM_FIELDS.items():
        if line := shorten_to_line(_join_texts(facts.get(name)), LINE_CHARS):
            entry[label] = line
    for name in _COUNTED_FIELDS:
        match facts.get(name):
            case [_, *_] as values:
                entry[name] = len(values)
            case _:
                pass
    return entry


def _collect_item_facts(item: JSON) -> dict[str, Any]:
    """Return the fields of an item and of its action in one mapping."""
    action = mapping_of(item.get("action")) or mapping_of(item.get("operation"))
    facts = {**item, **action, "action": action.get("type") or item.get("action")}
    if isinstance(item.get("arguments"), dict):
        facts["arguments"] = json.dumps(hide_blobs(item["arguments"]), ensure_ascii=False)
    if item.get("type") == "program_output":  # in other items a result is an image
        facts["output"] = item.get("result")
    return facts


def _join_texts(value: Any, depth: int = MAX_TEXT_DEPTH) -> str:
    """Return the texts in a text, a list of texts, or an object that keeps them in a field that we know."""
    match value:
        case str():
            return value
        case [*parts] if depth:
            texts = (_join_texts(each, depth - 1) for each in parts)
            return "; ".join(filter(None, texts))
        case {**fields} if depth:
            texts = (_join_texts(fields.get(name), depth - 1) for name in _TEXT_FIELDS)
            return " ".join(filter(None, texts))
        case _:
            return ""


def _is_data_url(url: str) -> bool:
    return url.lstrip()[:5].lower() == "data:"
