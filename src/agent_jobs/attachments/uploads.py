"""Recognize files that were uploaded, by the rules for files on a disk."""

from collections.abc import Iterable
from dataclasses import replace

from agent_jobs.attachments.attachment import Attachment
from agent_jobs.attachments.file_reader import FileReader
from agent_jobs.attachments.protected_files import refuse_protected


def attach_uploads(files: Iterable[tuple[str, bytes]], *, upload: bool) -> list[Attachment]:
    """Return the attachments of these names and contents, with distinct names.

    Args:
        files: They were named one by one.
        upload: Whether files for the code interpreter are attached as `data`.

    Raises:
        RequestError: One of them cannot be attached, or they are too much.
    """
    reader = FileReader(upload=upload)
    attachments: dict[str, Attachment] = {}
    for name, data in files:
        refuse_protected((name,))
        attachment = reader.recognize_data(name, data)
        number = 1
        while attachment.name in attachments:
            number += 1
            attachment = replace(attachment, name=f"{number}-{name}")
        attachments[attachment.name] = attachment
    return list(attachments.values())
