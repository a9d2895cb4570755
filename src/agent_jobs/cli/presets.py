"""`agent-jobs presets`: list the requests that have a name."""

from collections.abc import Iterator, Mapping

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.sections import wrap_sentence
from agent_jobs.cli.display.table import render_table
from agent_jobs.cli.session import convert_errors, json_option, read_settings
from agent_jobs.jobs.response import JSON
from agent_jobs.request.models import load_models
from agent_jobs.request.presets import Preset, load_our_presets, load_presets
from agent_jobs.settings.settings import Settings
from agent_jobs.text import compact_json


@click.command("presets")
@json_option
def presets_command(as_json: bool) -> None:
    """List the presets: requests with a name.

    A preset sets the model, the effort, web search and other options of a job. Arguments that you give beside it win.
    AGENT_JOBS_PRESETS names a TOML file with presets of your own.
    """
    settings = read_settings()
    with convert_errors():
        presets = load_presets(settings.presets)
    if as_json:
        return click.echo(compact_json(_render_presets(presets, settings)))
    return click.echo("\n".join(_render_preset_table(presets, settings)))


def _render_presets(presets: Mapping[str, Preset], settings: Settings) -> JSON:
    return {
        "file": str(settings.presets) if settings.presets else None,
        "presets": [_render_preset(name, preset, settings) for name, preset in presets.items()],
    }


def _render_preset(name: str, preset: Preset, settings: Settings) -> JSON:
    """Return the settings of a preset; the model is that of a job with it."""
    from agent_jobs.rendering import answers

    return {
        "preset": name,
        "description": preset.description,
        "model": _find_preset_model(preset, settings),
        **answers.drop_missing({"effort": preset.effort, "web_search": preset.web_search}),
        "options": dict(preset.options),
        "source": _name_source(name, preset),
    }


def _render_preset_table(presets: Mapping[str, Preset], settings: Settings) -> Iterator[str]:
    cells = [_build_preset_cells(name, preset, settings) for name, preset in presets.items()]
    yield from render_table(cells, terminal.find_width(), flexible="PURPOSE", dispensable=("SOURCE", "WEB", "MODEL"))
    yield ""
    notes = ["Use one with: agent-jobs run --preset review ..."]
    if settings.presets is None:
        notes.append("Name a TOML file with your own in AGENT_JOBS_PRESETS.")
    else:
        notes.append(f"Your own are in {settings.presets}.")
    for note in notes:
        yield from wrap_sentence(note)


def _build_preset_cells(name: str, preset: Preset, settings: Settings) -> dict[str, str]:
    """Return a preset's cells by the names of their columns."""
    source = _name_source(name, preset)
    return {
        "PRESET": name,
        "MODEL": _find_preset_model(preset, settings),
        "EFFORT": preset.effort or "",
        "WEB": "yes" if preset.web_search else "",
        "SOURCE": "" if source == "built in" else source,
        "PURPOSE": terminal.join_lines(preset.description),
    }


def _find_preset_model(preset: Preset, settings: Settings) -> str:
    return preset.model or settings.model or load_models()["default"]


def _name_source(name: str, preset: Preset) -> str:
    """Return who wrote a preset."""
    ours = load_our_presets().get(name)
    if ours is None:
        return "yours"
    if ours == preset:
        return "built in"
    return "changed"
