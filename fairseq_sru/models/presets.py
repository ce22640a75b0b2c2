"""Named architectures: sets of option values, for --arch and for hydra's model=."""

from __future__ import annotations

from typing import Any, Callable

from fairseq.models import MODEL_DATACLASS_REGISTRY, register_model_architecture
from hydra.core.config_store import ConfigStore


def register_presets(model: str, presets: dict[str, dict[str, Any]]) -> None:
    """Register each of ``presets`` (name -> option values) as an architecture of ``model``."""
    for name, values in presets.items():
        register_model_architecture(model, name)(fill_in(values))
        node = MODEL_DATACLASS_REGISTRY[model](**values)
        node._name = model
        ConfigStore.instance().store(name=name, group="model", node=node, provider="fairseq_sru")


def fill_in(values: dict[str, Any]) -> Callable[[Any], None]:
    """A function that gives options their ``values`` where they have none yet."""

    def architecture(args) -> None:
        for option, value in values.items():
            if not hasattr(args, option):
                setattr(args, option, value)

    return architecture
