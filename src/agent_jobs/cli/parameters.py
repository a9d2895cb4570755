"""Names on the command line that a shell can complete."""

import os
from collections.abc import Mapping

import click
from click.shell_completion import CompletionItem

from agent_jobs.cli.session import find_jobs_to_complete
from agent_jobs.errors import ConfigError
from agent_jobs.settings.configuration import load_usable_settings

#: Jobs that are searched for names of batches: a batch has hundreds, and a shell waits for the answer.
SEARCHED_JOBS = 500


def _offer_words(helps: Mapping[str, str | None], incomplete: str) -> list[CompletionItem]:
    """Return the words that begin with the typed text, each with its help if it has one."""
    return [CompletionItem(word, help=text) for word, text in helps.items() if word.startswith(incomplete)]


class ModelName(click.ParamType[str]):
    """A model's name, completed from the models that are known without asking the provider."""

    name = "model"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin with the typed text; the default model comes first."""
        from agent_jobs.request.models import list_known_names, load_models

        default = load_usable_settings(os.environ)[0].model or load_models()["default"]
        helps = dict.fromkeys((default, *list_known_names()), "") | {default: "the default"}
        return _offer_words(helps, incomplete)


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
        return _offer_words({name: preset.description for name, preset in presets.items()}, incomplete)


class EffortName(click.ParamType[str]):
    """A reasoning effort, completed from those that the model accepts."""

    name = "effort"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the efforts of the model in the line, else all efforts."""
        from agent_jobs.request.models import list_efforts
        from agent_jobs.request.presets import EFFORTS

        efforts = list_efforts(ctx.params.get("model") or "") or EFFORTS
        return _offer_words(dict.fromkeys(efforts), incomplete)


class BatchName(click.ParamType[str]):
    """A batch's name, completed from the newest jobs."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the batches that begin with the typed text, the newest first."""
        jobs = find_jobs_to_complete(SEARCHED_JOBS)
        return _offer_words(dict.fromkeys(job.batch for job in jobs if job.batch), incomplete)
