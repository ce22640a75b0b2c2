"""The SRU++ layers of a model, from its options."""

from __future__ import annotations

from fairseq_sru.models.config import StackConfig
from fairseq_sru.modules import SRUpp


def build_stack(
    cfg: StackConfig,
    input_size: int,
    num_layers: int,
    attention: str,
    attn_dropout: float,
    hidden_size: int | None = None,
    bidirectional: bool = False,
) -> SRUpp:
    """SRU++ layers that read vectors of ``input_size``.

    Args:
        attention: which layers attend, see :func:`fairseq_sru.modules.placement.attention_layers`.
        attn_dropout: of the attention weights.
        hidden_size: d, per direction; default: --hidden-size.

    Raises:
        ValueError: impossible sizes or options.
    """
    stack = SRUpp(
        input_size,
        cfg.hidden_size if hidden_size is None else hidden_size,
        cfg.proj_size,
        num_layers,
        attention=attention,
        num_heads=cfg.num_heads,
        alpha=cfg.alpha_init,
        bidirectional=bidirectional,
        dropout=cfg.dropout,
        attn_dropout=attn_dropout,
        attn_layer_norm=not cfg.no_attention_norm,
        layer_norm=None if str(cfg.layer_norm) == "none" else str(cfg.layer_norm),
        highway_bias=cfg.highway_bias,
        rescale=cfg.rescale,
        project_input=True,
        checkpoint=cfg.checkpoint_activations,
    )
    if cfg.srupp_compile:
        for layer in stack.layers:
            layer.compile(dynamic=True)
    return stack
