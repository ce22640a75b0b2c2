"""Named architectures: sets of option values, for --arch and for hydra's model=."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Callable

from fairseq.models import MODEL_DATACLASS_REGISTRY, register_model_architecture
from hydra.core.config_store import ConfigStore


def register_presets(model: str, presets: dict[str, dict[str, Any]]) -> None:
    """Register each of ``presets`` (name -> option values) as an architecture of ``model``.

    An architecture also gives the model's defaults to options that a checkpoint, older than they
    are, lacks.
    """
    dataclass = MODEL_DATACLASS_REGISTRY[model]
    options = [option for option in fields(dataclass) if option.name != "_name"]
    defaults = {option.name: option.default for option in options}
    for name, values in presets.items():
        register_model_architecture(model, name)(fill_in({**defaults, **values}))
        node = dataclass(**values)
        node._name = model
        ConfigStore.instance().store(name=name, group="model", node=node, provider="fairseq_sru")


def fill_in(values: dict[str, Any]) -> Callable[[Any], None]:
    """A function that gives options their ``values`` where they have none yet."""

    def architecture(args) -> None:
        for option, value in values.items():
            if not hasattr(args, option):
                setattr(args, option, value)

    return architecture
