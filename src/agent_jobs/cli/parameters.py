"""Names on the command line that a shell can complete."""

import os

import click
from click.shell_completion import CompletionItem

from agent_jobs.cli.session import find_jobs_to_complete
from agent_jobs.errors import ConfigError
from agent_jobs.settings.configuration import load_usable_settings

#: Jobs that are searched for names of batches: a batch has hundreds, and a shell waits for the answer.
SEARCHED_JOBS = 500


class ModelName(click.ParamType[str]):
    """A model's name, completed from the models that are known without asking the provider."""

    name = "model"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin with the typed text; the default model comes first."""
        from agent_jobs.request.models import list_known_names, load_models

        default = load_usable_settings(os.environ)[0].model or load_models()["default"]
        helps = {default: "the default", **dict.fromkeys((name for name in list_known_names() if name != default), "")}
        return [CompletionItem(name, help=text) for name, text in helps.items() if name.startswith(incomplete)]


class PresetName(click.ParamType[str]):
    """A preset's name, completed from our presets and the user's own."""

    name = "preset"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin with the typed text, with the purpose of each preset."""
        from agent_jobs.request.presets import load_presets

        try:
            presets = load_presets(load_usable_settings(os.environ)[0].presets)
        except ConfigError:
            presets = load_presets(None)
        return [
            CompletionItem(name, help=preset.description)
            for name, preset in presets.items()
            if name.startswith(incomplete)
        ]


class EffortName(click.ParamType[str]):
    """A reasoning effort, completed from those that the model accepts."""

    name = "effort"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the efforts of the model in the line, else all efforts."""
        from agent_jobs.request.models import list_efforts
        from agent_jobs.request.presets import EFFORTS

        efforts = list_efforts(ctx.params.get("model") or "") or EFFORTS
        return [CompletionItem(effort) for effort in efforts if effort.startswith(incomplete)]


class BatchName(click.ParamType[str]):
    """A batch's name, completed from the newest jobs."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the batches that begin with the typed text, the newest first."""
        jobs = find_jobs_to_complete(SEARCHED_JOBS)
        names = dict.fromkeys(job.batch for job in jobs if job.batch)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]
