"""The models the emulator knows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import ApiError
from .validate import EFFORTS, check_model

__all__ = ["Models"]

Json = dict[str, Any]

_CREATED = 1_760_000_000


@dataclass(frozen=True)
class _Model:
    id: str
    efforts: tuple[str, ...] = EFFORTS
    sampling: bool = False
    shutdown_date: str | None = None

    def card(self) -> Json:
        card: Json = {"id": self.id, "object": "model", "created": _CREATED, "owned_by": "openai"}
        return card | {"shutdown_date": self.shutdown_date} if self.shutdown_date else card


_FROM_LOW = EFFORTS[EFFORTS.index("low") :]
_FROM_NONE = ("none", *_FROM_LOW)
_CURRENT = (
    _Model("gpt-6.2-sol", _FROM_LOW),
    _Model("gpt-6.2-astra", _FROM_LOW),
    _Model("gpt-6.1-sol", _FROM_NONE),
    _Model("gpt-6-luna", _FROM_NONE),
    _Model("gpt-5.6-sol", _FROM_NONE, shutdown_date="2027-06-30"),
)


class Models:
    """A list of models, plus every name that starts with "emulated"."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        added = [_Model(name, sampling=True) for name in more]
        self._known = {model.id: model for model in (*_CURRENT, *added)}

    def find(self, model_id: str) -> _Model | None:
        """Give a known model."""
        if model_id.startswith("emulated"):
            return _Model(model_id, sampling=True)
        return self._known.get(model_id)

    def check(self, body: Json) -> None:
        """Raise what OpenAI answers when the model does not exist or does not take a setting."""
        model = self.find(body["model"])
        found = model or _Model(body["model"])
        check_model(body, known=model is not None, efforts=found.efforts, sampling=found.sampling)

    def listing(self) -> Json:
        """Give the answer to GET /models."""
        return {"object": "list", "data": [model.card() for model in self._known.values()]}

    def card(self, model_id: str) -> Json:
        """Give the answer to GET /models/{id}."""
        model = self.find(model_id)
        if model is None:
            raise ApiError(404, f"The model '{model_id}' does not exist", param="model", code="model_not_found")
        return model.card()
