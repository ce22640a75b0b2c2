"""Names that fairseq's commands know: models, tasks, architectures."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Callable, Dict

from fairseq import models, tasks
from hydra.core.config_store import ConfigStore


class Preset(Dict[str, Any]):
    """Option values of a named architecture.

    Args:
        types: size of the vocabulary it is meant for, of each side.
    """

    def __init__(self, types: int, **options: Any) -> None:
        super().__init__(options)
        self.types = types


#: every architecture of this package
ARCHITECTURES: dict[str, Preset] = {}


def register_model(name: str, dataclass: Any = None) -> Callable[[type], type]:
    """fairseq's decorator, which returns the older class in silence when ``name`` is taken.

    Raises:
        ValueError: ``name`` is taken.
    """
    return _register(models.register_model, models.MODEL_REGISTRY, "model", name, dataclass)


def register_task(name: str, dataclass: Any = None) -> Callable[[type], type]:
    """As :func:`register_model`, of a task."""
    return _register(tasks.register_task, tasks.TASK_REGISTRY, "task", name, dataclass)


def _register(
    register: Callable, registry: dict[str, type], kind: str, name: str, dataclass: Any
) -> Callable[[type], type]:
    if name in registry:
        owner = f"{registry[name].__module__}.{registry[name].__qualname__}"
        raise ValueError(f"{kind} {name!r} is already registered by {owner}: is fairseq_sru or "
                         "another --user-dir loaded twice?")
    return register(name, dataclass=dataclass)


def register_presets(model: str, presets: dict[str, Preset]) -> None:
    """Register each preset as an architecture of ``model``, for --arch and for hydra's model=.

    An architecture also gives the model's defaults to options that a checkpoint, older than they
    are, lacks.
    """
    dataclass = models.MODEL_DATACLASS_REGISTRY[model]
    options = [option for option in fields(dataclass) if option.name != "_name"]
    defaults = {option.name: option.default for option in options}
    for name, preset in presets.items():
        register_architecture(model, name, preset, fill_in({**defaults, **preset}))
        node = dataclass(**preset)
        node._name = model
        ConfigStore.instance().store(name=name, group="model", node=node, provider="fairseq_sru")


def register_architecture(
    model: str, name: str, preset: Preset, complete: Callable[[Any], None]
) -> None:
    """Register ``name``, whose options ``complete`` fills in where they have no value yet."""
    models.register_model_architecture(model, name)(complete)
    ARCHITECTURES[name] = preset


def fill_in(values: dict[str, Any]) -> Callable[[Any], None]:
    """A function that gives options their ``values`` where they have none yet."""

    def architecture(args: Any) -> None:
        for option, value in values.items():
            if not hasattr(args, option):
                setattr(args, option, value)

    return architecture
