"""Read presets, which are requests by name: ours from data/presets.toml, and those of the user's own file."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from agent_jobs.errors import ConfigError, RequestError
from agent_jobs.files.text_file import explain_read_error, read_text
from agent_jobs.jobs.response import JSON
from agent_jobs.request.options import StartOptions, normalize_schema_option
from agent_jobs.validation import ENTRY_CODES, FLAG, STRING, Choice, mapping

SETTING = "AGENT_JOBS_PRESETS"
PRESET_CHARS = 40  # of a wrong preset's name that are shown: a right one is no longer
#: Values of reasoning.effort in the API; a model may refuse some of them and says so itself.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
#: A host's model reads this for a preset that has no prompt of its own.
PROMPT = (
    'Call agent_start with preset="{name}" and a prompt that holds all that the job needs to know, for it sees nothing '
    "else. Tell me the job_id, agent_poll until it ends, and give me the result.\n\n{task}"
)
#: A name must do as a slash command of every host.
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A request by name.

    Args:
        description: One line for a list.
        prompt: A host's model reads it when a person calls the preset; `{task}` is replaced by the person's text.
        model: As `agent_start` accepts it, like the following; None leaves it to the caller.
    """

    description: str
    prompt: str
    model: str | None = None
    effort: str | None = None
    web_search: bool | None = None
    options: JSON = field(default_factory=lambda: MappingProxyType({}))

    def fill_in_task(self, task: str) -> str:
        """Return the prompt for a task."""
        return self.prompt.replace("{task}", task)


@cache
def load_our_presets() -> Mapping[str, Preset]:
    """Return the presets that come with the program."""
    written = resources.files("agent_jobs").joinpath("data", "presets.toml").read_text("utf-8")
    return _read_presets(written, "data/presets.toml", {})


def load_presets(path: Path | None) -> Mapping[str, Preset]:
    """Return our presets and the user's; a preset of the user's with the name of one of ours changes that one.

    Raises:
        ConfigError: The file cannot be read or used; the message names the file and the key.
    """
    if path is None:
        return load_our_presets()
    try:
        written = read_text(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            "{setting}: cannot read {path}: {reason}.",
            "unreadable_entry_file",
            setting=SETTING,
            path=path,
            reason=explain_read_error(error, "it is not UTF-8 text"),
        ) from None
    return MappingProxyType({**load_our_presets(), **_read_presets(written, str(path), load_our_presets())})


def _read_presets(written: str, source: str, known: Mapping[str, Preset]) -> Mapping[str, Preset]:
    import tomllib  # not needed to answer `initialize`

    try:
        tables = tomllib.loads(written)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            "{setting}: {source} is not TOML: {reason}.",
            "wrong_entry_file",
            setting=SETTING,
            source=source,
            reason=error,
        ) from None
    presets: dict[str, Preset] = {}
    for name, table in tables.items():
        try:
            presets[name] = _read_preset(name, table, known.get(name))
        except RequestError as error:
            raise _preset_error(source, name, error) from None
    return MappingProxyType(presets)


def _preset_error(source: str, name: str, error: RequestError) -> ConfigError:
    """Return the refusal of a preset in the user's file, with its fix."""
    problem = f"{SETTING}: {source}: [{name[:PRESET_CHARS]}] {error}"
    facts = {each: error.data[each] for each in ("near", "names") if each in error.data}
    return ConfigError("{problem}", ENTRY_CODES.get(error.code, "wrong_entry"), problem=problem, **facts)


def _read_preset(name: str, table: Any, base: Preset | None) -> Preset:
    """Return the preset of one table, over the one that it changes.

    Raises:
        RequestError: A key or its value is not allowed.
    """
    if not _NAME.fullmatch(name):
        raise RequestError("a preset's name accepts up to 40 lower-case letters, digits, _ and -.", "wrong_value")
    if not isinstance(table, dict):
        raise RequestError(f"a preset is a table: [{name}] and its keys below it.", "wrong_value")
    given: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", table).items():
        given[key] = _FIELDS[Choice(_FIELDS).check("a preset", key)](key, value)
    if base is not None:
        given["options"] = MappingProxyType({**base.options, **given.get("options", {})})
        return replace(base, **given)
    if "description" not in given:
        raise RequestError("description is missing, a line that says what the preset is for.", "wrong_value")
    given.setdefault("prompt", PROMPT.replace("{name}", name))
    return Preset(**given)


def _read_prompt(name: str, value: Any) -> str:
    if "{task}" not in STRING.check(name, value):
        raise RequestError("prompt lacks {task} where the person's own words go.", "wrong_value")
    return value.strip()


def _read_preset_options(name: str, value: Any) -> JSON:
    options = normalize_schema_option(mapping('{ verbosity = "low" }').check(name, value))
    if "key" in options:
        raise RequestError("options.key belongs to one job and not to a preset.", "wrong_value")
    StartOptions.parse(options)
    try:
        json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError):
        raise RequestError(
            "options contain a value that JSON cannot represent, such as a date.", "wrong_value"
        ) from None
    return MappingProxyType(dict(options))


_FIELDS: Mapping[str, Callable[[str, Any], Any]] = {
    "description": STRING.check,
    "prompt": _read_prompt,
    "model": STRING.check,
    "effort": Choice(EFFORTS).check,
    "web_search": FLAG.check,
    "options": _read_preset_options,
}
