"""Build hook of hatchling: the README as the package index shows it."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: The target of a Markdown link that is a file of the repository.
LINK = re.compile(r"(?<=\]\()(?!https?://|mailto:)([^)\s]+)(?=\))")
#: What stands before the path of a picture in HTML.
PICTURE = re.compile(r'(?P<name>\b(?:src|srcset)=")(?!https?://)(?=[^"])')


class ReadmeHook(MetadataHookInterface):
    """Makes relative links absolute: the package index has no files beside the README."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme, with links to this version in the repository that `[project.urls]` names."""
        repository, tag = metadata["urls"]["Repository"], f"v{metadata['version']}"
        text = Path(self.root, "README.md").read_text("utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": make_links_absolute(text, f"{repository}/blob/{tag}/", f"{repository}/raw/{tag}/"),
        }


def make_links_absolute(text: str, pages: str, pictures: str) -> str:
    """Return a Markdown text whose relative links begin with `pages`, and its pictures with `pictures`."""
    text = LINK.sub(lambda found: _make_target_absolute(found[0], pages, pictures), text)
    return PICTURE.sub(lambda found: found["name"] + pictures, text)


def _make_target_absolute(target: str, pages: str, pictures: str) -> str:
    """Return the target of a Markdown link as an address; a heading alone is one of the README."""
    if target.startswith("#"):
        return f"{pages}README.md{target}"
    if target.endswith((".svg", ".png")):
        return pictures + target
    return pages + target
