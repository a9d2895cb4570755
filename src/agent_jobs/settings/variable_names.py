"""Find the setting that a misnamed environment variable was meant for. Pure."""

from collections.abc import Collection, Mapping

from agent_jobs.errors import SettingWarning
from agent_jobs.text import nearest

PREFIX = "AGENT_JOBS_"
KEY = "OPENAI_API_KEY"
KEY_FILE = "AGENT_JOBS_API_KEY_FILE"
BASE_URL = "OPENAI_BASE_URL"
TEAM_TOKEN = "AGENT_JOBS_TOKEN"
TEAM_TOKEN_BEGINNING = "ajt_"
FOREIGN_CUTOFF = 0.9  # a variable without our prefix may belong to another program: only a plain slip counts
#: Other names for our variables, without case, `_` and `-`; behind our prefix the first word is optional.
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
_NAME_OF_ALIAS = {alias: name for name, aliases in ALIASES.items() for alias in aliases}


def find_misnamed(env: Mapping[str, str], names: Collection[str]) -> list[SettingWarning]:
    """Return a warning for each variable that sets nothing, but was meant to.

    Args:
        env: The variables that are set to something. No value is shown.
        names: The names of our variables.
    """
    # A variable of another program is not reported while ours is set.
    wanted = {KEY, BASE_URL} - env.keys()
    if KEY_FILE in env:
        wanted.discard(KEY)
    warnings: list[SettingWarning] = []
    for name in sorted(env.keys() - {*names, _find_team_token(env)}):
        is_ours = name.startswith(PREFIX)
        meant = _find_ours(name, names) if is_ours else _find_foreign(name, names, sorted(wanted))
        if meant is not None:
            warnings.append(misnamed_warning(name, meant))
        elif is_ours:
            warnings.append(unknown_warning(name))
    return warnings


def misnamed_warning(name: str, meant: str) -> SettingWarning:
    """Return that a setting has another name."""
    problem = "{name} is not a setting and has no effect: did you mean {meant}?"
    return SettingWarning(problem, "misnamed_setting", name=name, meant=meant)


def unknown_warning(name: str) -> SettingWarning:
    """Return that nothing is like the name of a setting."""
    return SettingWarning("{name} is not a setting and has no effect.", "unknown_setting", name=name)


def _find_team_token(env: Mapping[str, str]) -> str:
    """Return the variable with a team token, which hosts read for the entry of a team server; empty if none is set."""
    if env.get(TEAM_TOKEN, "").startswith(TEAM_TOKEN_BEGINNING):
        return TEAM_TOKEN
    return ""


def _find_ours(name: str, names: Collection[str]) -> str | None:
    """Return the variable that one with our prefix was meant to be."""
    bare = _squeeze_name(name.removeprefix(PREFIX))
    by_bare = {_squeeze_name(each.removeprefix(PREFIX)): each for each in names}
    known = {**_NAME_OF_ALIAS, **by_bare}
    return known.get(bare) or known.get(f"OPENAI{bare}") or by_bare.get(nearest(bare, by_bare) or "")


def _find_foreign(name: str, names: Collection[str], wanted: Collection[str]) -> str | None:
    """Return the variable that one without our prefix was meant to be, if that is beyond doubt."""
    squeezed = _squeeze_name(name)
    if squeezed.startswith("AGENT") and not name.startswith("_"):
        return _find_near(squeezed, [each for each in names if each.startswith(PREFIX)])
    if wanted and squeezed.startswith(("O", "AZUREOPENAI")):
        return _find_wanted(squeezed, wanted)
    return None


def _find_wanted(squeezed: str, wanted: Collection[str]) -> str | None:
    """Return the missing variable that another program's name for it was meant to be."""
    alias = _NAME_OF_ALIAS.get(squeezed)
    if alias is None:
        return _find_near(squeezed, wanted)
    if alias in wanted or (alias == KEY_FILE and KEY in wanted):
        return alias
    return None


def _find_near(squeezed: str, names: Collection[str]) -> str | None:
    by_squeezed = {_squeeze_name(each): each for each in names}
    return by_squeezed.get(nearest(squeezed, by_squeezed, FOREIGN_CUTOFF) or "")


def _squeeze_name(name: str) -> str:
    return name.replace("_", "").replace("-", "").upper()
