"""The stack of a model, from its options."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fairseq_sru.models.classifier_config import SRUppClassifierConfig
from fairseq_sru.models.config import LayerConfig, SRULayerConfig, SRUppConfig, SRUppLayerConfig
from fairseq_sru.models.lm_config import SRULMConfig, SRUppLMConfig
from fairseq_sru.modules import SRU, SRUpp


def build_srupp(
    cfg: SRUppConfig | SRUppLMConfig | SRUppClassifierConfig,
    input_size: int,
    num_layers: int,
    attention: str,
    hidden_size: int | None = None,
    **options: Any,
) -> SRUpp:
    """SRU++ layers that read vectors of ``input_size``.

    Args:
        attention: which layers attend, see :func:`fairseq_sru.modules.placement.attention_layers`.
        hidden_size: d, per direction; default: --hidden-size.
        options: of :class:`SRUpp`, besides those of ``cfg``.

    Raises:
        ValueError: impossible sizes or options.
    """
    options = {**layer_options(cfg, SRUppLayerConfig), **options}
    if options["attention_dropout"] is None:
        options["attention_dropout"] = cfg.dropout
    compiled = options.pop("srupp_compile")
    stack = SRUpp(
        input_size, cfg.hidden_size if hidden_size is None else hidden_size, cfg.proj_size,
        num_layers, attention=attention, project_input=True, **options)
    if compiled:
        for layer in stack.layers:
            layer.compile(dynamic=True)
    return stack


def build_srupp_lm(cfg: SRUppLMConfig, input_size: int) -> SRUpp:
    """As :func:`build_srupp`, of a language model."""
    return build_srupp(cfg, input_size, cfg.layers, cfg.attention)


def build_sru_lm(cfg: SRULMConfig, input_size: int) -> SRU:
    """SRU layers that read vectors of ``input_size``.

    Raises:
        ValueError: impossible sizes or options.

    Source: SRU paper section 4.4; which layers have a projection, as in its authors' training
    script.
    """
    if cfg.proj_size is not None and not 0 < cfg.proj_size < cfg.hidden_size:
        raise ValueError(f"--proj-size must be between 0 and --hidden-size "
                         f"({cfg.hidden_size}), got {cfg.proj_size}")
    proj_sizes = [cfg.proj_size] * cfg.layers
    if cfg.proj_size is not None and not cfg.project_input and input_size <= cfg.proj_size:
        proj_sizes[:1] = [None]  # it would widen the first layer's input, not narrow it
    return SRU(
        input_size, cfg.hidden_size, cfg.layers, proj_sizes, **layer_options(cfg, SRULayerConfig))


def layer_options(cfg: LayerConfig, kind: type[LayerConfig]) -> dict[str, Any]:
    """The options of ``cfg`` that ``kind`` declares, as ``fairseq_sru.modules`` names them."""
    options: dict[str, Any] = {}
    for option in fields(kind):
        value = getattr(cfg, option.name)
        if option.name.startswith("no_"):
            options[option.name[3:]] = not value
        elif not option.name.startswith("_"):
            options[option.name] = value
    options["layer_norm"] = None if str(cfg.layer_norm) == "none" else str(cfg.layer_norm)
    return options
