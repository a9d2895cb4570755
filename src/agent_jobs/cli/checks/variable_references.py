"""Resolve the references to variables in the entries of hosts' files."""

import re
from collections.abc import Mapping

#: Forms in which hosts refer to a variable: `$NAME`, `${NAME}`, `${NAME:-otherwise}`, `${env:NAME}`, `{env:NAME}`.
REFERENCE = re.compile(r"\$(?:\{(?:env:)?(\w+)(?::-([^}]*))?\}|(\w+))|\{env:(\w+)\}")


def resolve_references(value: str, around: Mapping[str, str]) -> str:
    """Return the value with each reference replaced by the variable of the host's environment."""

    def resolve(found: "re.Match[str]") -> str:
        return around.get(_read_name(found)) or found[2] or ""

    return REFERENCE.sub(resolve, value)


def list_references(value: str) -> list[str]:
    """Return the names of the variables to which a value refers."""
    return list(map(_read_name, REFERENCE.finditer(value)))


def _read_name(found: "re.Match[str]") -> str:
    return found[1] or found[3] or found[4]
