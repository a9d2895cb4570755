"""Decide which names the owners of a team server can have."""

MAX_NAME_CHARS = 512  # the longest subject of OpenID Connect has 255, and its issuer stands before it
#: What the metrics call the owners without a label, and jobs without an owner.
RESERVED_NAMES = frozenset({"(others)", "(none)"})
#: The rule for names, which tokens, sign-ins, settings and commands share.
NAME_RULE = (
    f"A name has 1 to {MAX_NAME_CHARS} printable characters, a letter or digit among them, no space at either end and "
    "no '-' at its beginning."
)


def is_owner_name(name: str) -> bool:
    """Return True if an owner can have this name: it cannot be confused with another one, or with an option.

    Without the normal form, two names that look the same would be two owners.
    """
    from unicodedata import is_normalized  # not needed to start

    checks = (
        name not in RESERVED_NAMES,
        not name.startswith("-"),
        len(name) <= MAX_NAME_CHARS,
        name.isprintable(),
        name.strip() == name,
        is_normalized("NFC", name),
        any(map(str.isalnum, name)),
    )
    return all(checks)
