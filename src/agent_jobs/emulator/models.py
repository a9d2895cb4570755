"""List the models of the emulator, and refuse what a model does not support."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from .errors import ApiError
from .parameters import read_object
from .validate import EFFORTS, check_settings

__all__ = ["Models"]

Json = dict[str, Any]

_CREATED = 1_760_000_000  # the same for all models
_DEPRECATIONS = "https://platform.openai.com/docs/deprecations"


@dataclass(frozen=True)
class EmulatedModel:
    id: str
    efforts: tuple[str, ...] = EFFORTS
    sampling: Literal["never", "without effort", "always"] = "never"
    shutdown_date: str | None = None

    def build_card(self) -> Json:
        """Return the model as the API's lists show it."""
        card: Json = {"id": self.id, "object": "model", "created": _CREATED, "owned_by": "openai"}
        if self.shutdown_date:
            card["shutdown_date"] = self.shutdown_date
        return card

    def can_sample(self, effort: str | None) -> bool:
        """Return True if the model accepts sampling parameters."""
        return self.sampling == "always" or (self.sampling == "without effort" and effort == "none")


_FROM_LOW = EFFORTS[EFFORTS.index("low") :]
_FROM_NONE = ("none", *_FROM_LOW)
_CURRENT = (
    EmulatedModel("gpt-6.2-sol", _FROM_LOW),
    EmulatedModel("gpt-6.2-astra", _FROM_LOW),
    EmulatedModel("gpt-6.1-sol", _FROM_NONE),
    EmulatedModel("gpt-6.1-terra", _FROM_NONE),
    EmulatedModel("gpt-6-astra", _FROM_LOW),
    EmulatedModel("gpt-6-sol", _FROM_NONE, "without effort"),
    EmulatedModel("gpt-6-luna", _FROM_NONE, "without effort"),
    EmulatedModel("gpt-5.6-sol", _FROM_NONE, shutdown_date="2027-06-30"),
    EmulatedModel("gpt-5", ("minimal", "low", "medium", "high"), shutdown_date="2026-12-11"),
)
_RETIRED = ("o3-deep-research", "o4-mini-deep-research")


class Models:
    """A list of models, plus every name that starts with "emulated"."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        added = [EmulatedModel(name, sampling="always") for name in more]
        self._known = {model.id: model for model in (*_CURRENT, *added)}

    def find(self, model_id: str) -> EmulatedModel | None:
        """Return a known model, or None."""
        if model_id.startswith("emulated"):
            return EmulatedModel(model_id, sampling="always")
        return self._known.get(model_id)

    def check(self, body: Json) -> None:
        """Raise OpenAI's error if the model does not exist or does not accept a setting."""
        model_id = body["model"]
        model = self.find(model_id)
        if model_id in _RETIRED:
            message = f"The model `{model_id}` has been deprecated, learn more here: {_DEPRECATIONS}"
            raise ApiError(404, message, code="model_not_found")
        if model is None:
            message = f"The requested model '{model_id}' does not exist."
            raise ApiError(400, message, param="model", code="model_not_found")
        sampling = model.can_sample(read_object(body, "reasoning").get("effort"))
        check_settings(body, efforts=model.efforts, sampling=sampling)

    def list_cards(self) -> Json:
        """Return the answer to GET /models."""
        return {"object": "list", "data": [model.build_card() for model in self._known.values()]}

    def find_card(self, model_id: str) -> Json:
        """Return the answer to GET /models/{id}."""
        model = self.find(model_id)
        if model is None:
            raise ApiError(404, f"The model '{model_id}' does not exist", param="model", code="model_not_found")
        return model.build_card()
