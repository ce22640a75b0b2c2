"""The constructor options of the reference's SRU and SRUpp, as modules of ours."""

from __future__ import annotations

from typing import Any

from fairseq_sru.convert.layout import ConversionError
from fairseq_sru.modules import SRU, SRUpp

# What their options start from where ours do not; both stacks share the first six.
COMMON = dict(num_layers=2, dropout=0.0, bidirectional=False, layer_norm=False,
              normalize_after=False, rescale=False, proj_input_to_hidden_first=False)
SRU_DEFAULTS = dict(COMMON, highway_bias=0.0, projection_size=0, has_skip_term=True,
                    use_tanh=False, v1=False)
SRUPP_DEFAULTS = dict(COMMON, highway_bias=-2.0, attn_dropout=0.0, num_heads=1,
                      attn_layer_norm=True, attention_every_n_layers=1,
                      attention_last_n_layers=-1)
REQUIRED = {"SRU": {"input_size", "hidden_size"},
            "SRUpp": {"input_size", "hidden_size", "proj_size"}}
# How c is returned, how weights start, which type a GPU kernel uses, dropout of W's input in
# training (rnn_dropout): nothing that a module of ours would have to know.
INERT = {"nn_rnn_compatible_return", "weight_c_init", "amp_recurrence_fp16", "rnn_dropout"}


def build_stack(kind: str | None, options: dict[str, Any]) -> SRU | SRUpp:
    """Our counterpart of the reference's ``kind(**options)``, with fresh parameters.

    Raises:
        ConversionError: an unknown kind; options missing, unknown or without a counterpart.
    """
    if kind not in REQUIRED:
        raise ConversionError(f"kind must be SRU or SRUpp, got {kind!r}")
    defaults = SRU_DEFAULTS if kind == "SRU" else SRUPP_DEFAULTS
    missing = REQUIRED[kind] - options.keys()
    unknown = options.keys() - REQUIRED[kind] - defaults.keys() - (
        INERT if kind == "SRU" else INERT - {"rnn_dropout", "amp_recurrence_fp16"})
    if missing or unknown:
        raise ConversionError(
            f"{kind}: " + "; ".join([f"{name} is missing" for name in sorted(missing)]
                                    + [f"{name} is unknown" for name in sorted(unknown)]))
    o = {**defaults, **options}
    shared = dict(
        num_layers=o["num_layers"],
        bidirectional=o["bidirectional"],
        dropout=o["dropout"],
        layer_norm=("post" if o["normalize_after"] else "pre") if o["layer_norm"] else None,
        highway_bias=o["highway_bias"],
        rescale=o["rescale"],
        project_input=o["proj_input_to_hidden_first"],
    )
    if kind == "SRUpp":
        return SRUpp(
            o["input_size"],
            o["hidden_size"],
            o["proj_size"],
            attention=_attention(o["attention_every_n_layers"], o["attention_last_n_layers"]),
            num_heads=o["num_heads"],
            attention_dropout=o["attn_dropout"],
            attention_norm=o["attn_layer_norm"],
            **shared,
        )
    stack = SRU(
        o["input_size"],
        o["hidden_size"],
        proj_size=o["projection_size"],
        highway=o["has_skip_term"],
        tanh=o["use_tanh"],
        **shared,
    )
    if o["v1"]:  # there v * c starts as zero and is never trained
        for layer in stack.layers:
            layer.recurrence.weight_c.requires_grad_(False).zero_()
    return stack


def _attention(every: int, last: int) -> str:
    if last == -1:
        return f"every:{every}"
    return f"last:{last}" if last > 0 else "none"
