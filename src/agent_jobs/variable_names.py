"""Which setting a misnamed environment variable was meant for. Pure."""

from collections.abc import Collection, Mapping

from agent_jobs.text import nearest

PREFIX = "AGENT_JOBS_"
KEY, KEY_FILE, BASE_URL = "OPENAI_API_KEY", "AGENT_JOBS_API_KEY_FILE", "OPENAI_BASE_URL"
#: A variable without our prefix may belong to another program: only a plain slip counts.
FOREIGN_CUTOFF = 0.9
#: What people and other programs call ours, without case, `_` and `-`; behind our prefix the first word is optional.
ALIASES: Mapping[str, Collection[str]] = {
    KEY: (
        "OPENAIKEY", "OPENAITOKEN", "OPENAIAPITOKEN", "OPENAISECRET", "OPENAISECRETKEY", "OPENAIAPISECRET",
        "AZUREOPENAIAPIKEY", "AZUREOPENAIKEY",
    ),
    KEY_FILE: ("OPENAIKEYFILE", "OPENAIKEYPATH", "OPENAIAPIKEYFILE", "OPENAIAPIKEYPATH"),
    BASE_URL: (
        "OPENAIURL", "OPENAIBASE", "OPENAIAPIBASE", "OPENAIAPIURL", "OPENAIAPIBASEURL", "OPENAIENDPOINT",
        "OPENAIAPIENDPOINT", "OPENAIHOST", "OPENAIAPIHOST",
    ),
}  # fmt: skip


def find_misnamed(env: Mapping[str, str], names: Collection[str]) -> list[str]:
    """Return a sentence for each variable that sets nothing, but was meant to.

    Args:
        env: The variables that are set to something. No value is shown.
        names: Those that there are.
    """
    # Another program's variable says nothing while ours is set.
    wanted = [name for name in (KEY, BASE_URL) if name not in env and not (name == KEY and KEY_FILE in env)]
    sentences: list[str] = []
    for name in sorted(env.keys() - names):
        is_ours = name.startswith(PREFIX)
        meant = _find_ours(name, names) if is_ours else _find_foreign(name, names, wanted)
        if is_ours or meant is not None:
            advice = f"did you mean {meant}?" if meant is not None else "remove it."
            sentences.append(f"{name} is no setting and changes nothing: {advice}")
    return sentences


def _find_ours(name: str, names: Collection[str]) -> str | None:
    """Return what a variable of our prefix was meant to be."""
    bare = _squeeze(name.removeprefix(PREFIX))
    by_bare = {_squeeze(each.removeprefix(PREFIX)): each for each in names}
    exact = by_bare.get(bare) or by_bare.get(f"OPENAI{bare}")
    near = exact or _find_alias(bare) or _find_alias(f"OPENAI{bare}")
    if near is None and (found := nearest(bare, by_bare)):
        near = by_bare[found]
    return near


def _find_foreign(name: str, names: Collection[str], wanted: Collection[str]) -> str | None:
    """Return what a variable without our prefix was meant to be, where that is beyond doubt."""
    squeezed = _squeeze(name)
    if squeezed.startswith("AGENT") and not name.startswith("_"):
        ours = {_squeeze(each): each for each in names if each.startswith(PREFIX)}
    elif wanted and squeezed.startswith(("O", "AZUREOPENAI")):
        if (alias := _find_alias(squeezed)) is not None:
            return alias if alias in wanted or (alias == KEY_FILE and KEY in wanted) else None
        ours = {_squeeze(each): each for each in wanted}
    else:
        return None
    found = nearest(squeezed, ours, FOREIGN_CUTOFF)
    return ours[found] if found else None


def _find_alias(squeezed: str) -> str | None:
    return next((name for name, aliases in ALIASES.items() if squeezed in aliases), None)


def _squeeze(name: str) -> str:
    return name.replace("_", "").replace("-", "").upper()
