"""Transformer whose feed-forward layers are SRU layers: W SRU(x) + b in place of W ReLU(V x) + b.

All options of fairseq's ``transformer`` apply; --encoder-ffn-embed-dim and --decoder-ffn-embed-dim
are the sizes of the SRU layers.

Source: SRU paper section 4.3.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import contextmanager
from typing import Any, Callable, Iterator

from fairseq.data import Dictionary
from fairseq.distributed import fsdp_wrap
from fairseq.incremental_decoding_utils import FairseqIncrementalState
from fairseq.models.transformer import (
    TransformerConfig,
    TransformerDecoderBase,
    TransformerEncoderBase,
    TransformerModel,
    base_architecture,
)
from fairseq.modules import FairseqDropout
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from fairseq.modules.transformer_layer import (
    TransformerDecoderLayerBase,
    TransformerEncoderLayerBase,
)
from torch import Tensor, nn

from fairseq_sru.models.embedding import Dropout
from fairseq_sru.modules import SRULayer
from fairseq_sru.options import check_options
from fairseq_sru.registry import Preset, fill_in, register_architecture, register_model


class SRUInside(FairseqIncrementalState, nn.Module):
    """An SRU layer without highway where the Transformer calls a linear map.

    The caller passes x alone, so :meth:`reading` tells what else the layer needs.

    Args:
        size: of the output, over both directions.
        dropout: of the cell state, one mask per sentence.

    Raises:
        ValueError: ``bidirectional`` with an odd size.
    """

    get_incremental_state: Callable[..., Any]
    set_incremental_state: Callable[..., Any]

    def __init__(
        self, input_size: int, size: int, dropout: float, bidirectional: bool = False
    ) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        if size % directions:
            raise ValueError(f"--sru-bidirectional-encoder needs an even "
                             f"--encoder-ffn-embed-dim, got {size}")
        self.layer = SRULayer(
            input_size, size // directions, bidirectional=bidirectional, dropout=dropout,
            highway=False)
        self._pad: Tensor | None = None
        self._state: dict[str, Any] | None = None

    @contextmanager
    def reading(
        self, pad: Tensor | None, incremental_state: dict[str, Any] | None = None
    ) -> Iterator[None]:
        """Within it x is padded by ``pad`` (B, L) and continues ``incremental_state``."""
        self._pad = None if pad is None else pad.t()
        self._state = incremental_state
        try:
            yield
        finally:
            self._pad = self._state = None

    def forward(self, x: Tensor) -> Tensor:
        """x (L, B, input_size) -> (L, B, size)"""
        before = self.get_incremental_state(self._state, "cell")
        if before is None:
            before = {"c": None, "mask": self.layer.recurrence.draw_mask(x.size(1))}
        h, c = self.layer(x, before["c"], self._pad, before["mask"])
        self.set_incremental_state(self._state, "cell", {**before, "c": c})
        return h

    def reorder_incremental_state(
        self, incremental_state: dict[str, Any], new_order: Tensor
    ) -> None:
        """Row i continues what row new_order[i] was (beam search)."""
        state = self.get_incremental_state(incremental_state, "cell")
        if state is not None:
            for name, value in state.items():
                state[name] = None if value is None else value.index_select(0, new_order)


def _identity(x: Tensor) -> Tensor:
    return x


def use_kernel_dropout(model: nn.Module) -> None:
    """Put :class:`Dropout` in the place of each of fairseq's."""
    for module in list(model.modules()):
        for name, part in module.named_children():
            if type(part) is FairseqDropout:
                setattr(module, name, Dropout(part.p, part.module_name))


class TransformerSRUEncoderLayer(TransformerEncoderLayerBase):
    """fairseq's layer with an SRU layer for its first linear map and ReLU."""

    def __init__(self, cfg: TransformerConfig, return_fc: bool = False) -> None:
        super().__init__(cfg, return_fc)
        self.fc1 = SRUInside(
            self.embed_dim, cfg.encoder.ffn_embed_dim, cfg.sru_dropout,
            cfg.sru_bidirectional_encoder)
        self.activation_fn = _identity

    def forward(
        self, x: Tensor, encoder_padding_mask: Tensor | None, attn_mask: Tensor | None = None
    ) -> Any:
        """x (S, B, C), encoder_padding_mask (B, S) -> (S, B, C)"""
        with self.fc1.reading(encoder_padding_mask):
            return super().forward(x, encoder_padding_mask, attn_mask)


class TransformerSRUDecoderLayer(TransformerDecoderLayerBase):
    """fairseq's layer with an SRU layer for its first linear map and ReLU."""

    def __init__(self, cfg: TransformerConfig, no_encoder_attn: bool = False) -> None:
        super().__init__(cfg, no_encoder_attn)
        self.fc1 = SRUInside(self.embed_dim, cfg.decoder.ffn_embed_dim, cfg.sru_dropout)
        self.activation_fn = _identity

    def forward(
        self,
        x: Tensor,
        encoder_out: Tensor | None = None,
        encoder_padding_mask: Tensor | None = None,
        incremental_state: dict[str, Any] | None = None,
        prev_self_attn_state: list[Tensor] | None = None,
        prev_attn_state: list[Tensor] | None = None,
        self_attn_mask: Tensor | None = None,
        self_attn_padding_mask: Tensor | None = None,
        need_attn: bool = False,
        need_head_weights: bool = False,
    ) -> Any:
        """x (T, B, C), self_attn_padding_mask (B, T) -> (T, B, C), attention, None"""
        with self.fc1.reading(self_attn_padding_mask, incremental_state):
            return super().forward(
                x, encoder_out, encoder_padding_mask, incremental_state, prev_self_attn_state,
                prev_attn_state, self_attn_mask, self_attn_padding_mask, need_attn,
                need_head_weights)


class TransformerSRUEncoder(TransformerEncoderBase):
    """fairseq's encoder with SRU layers inside."""

    def build_encoder_layer(self, cfg: TransformerConfig) -> nn.Module:
        return _wrap(TransformerSRUEncoderLayer(cfg, self.return_fc), cfg)


class TransformerSRUDecoder(TransformerDecoderBase):
    """fairseq's decoder with SRU layers inside."""

    def build_decoder_layer(
        self, cfg: TransformerConfig, no_encoder_attn: bool = False
    ) -> nn.Module:
        return _wrap(TransformerSRUDecoderLayer(cfg, no_encoder_attn), cfg)


def _wrap(layer: nn.Module, cfg: TransformerConfig) -> nn.Module:
    """For --checkpoint-activations and fully sharded training, as fairseq wraps its layers."""
    if not cfg.checkpoint_activations:
        return fsdp_wrap(layer, min_num_params=cfg.min_params_to_wrap)
    return fsdp_wrap(checkpoint_wrapper(layer, offload_to_cpu=cfg.offload_activations))


@register_model("transformer_sru")
class TransformerSRUModel(TransformerModel):
    """Transformer with SRU (SRU paper, section 4.3)."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        TransformerModel.add_args(parser)
        parser.add_argument("--sru-dropout", type=float, metavar="P",
                            help="dropout of the SRU's cell state")
        parser.add_argument("--sru-bidirectional-encoder", action="store_true",
                            help="half of the encoder's SRU channels read right to left")
        parser.add_argument("--share-input-embeddings", action="store_true",
                            help="one embedding for source and target, another for the output; "
                                 "needs a joined dictionary")

    @classmethod
    def hub_models(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def build_model(cls, args: Namespace, task: Any) -> TransformerSRUModel:
        """Build from options and the task's dictionaries.

        Raises:
            ValueError: an embedding is to be shared between two dictionaries or two sizes, an
                option has an impossible value, or an activation or quantisation noise is asked for,
                which would leave out the SRU layers.
        """
        fill_in(DEFAULTS)(args)
        check_options(args, CHECKED)
        if getattr(args, "activation_fn", "relu") != "relu":
            raise ValueError("--activation-fn: SRU layers stand where the activation was, there is "
                             "none: leave it out")
        for option in ("quant_noise_pq", "quant_noise_scalar"):
            if getattr(args, option, 0):
                raise ValueError(f"--{option.replace('_', '-')} reaches the Transformer's own maps "
                                 "alone, not the SRU layers: leave it out")
        model = super().build_model(args, task)
        if args.share_input_embeddings:
            if task.source_dictionary != task.target_dictionary:
                raise ValueError("--share-input-embeddings needs one dictionary for both "
                                 "languages: run fairseq-preprocess with --joined-dictionary")
            if args.encoder_embed_dim != args.decoder_embed_dim:
                raise ValueError("--share-input-embeddings needs the same --encoder-embed-dim and "
                                 "--decoder-embed-dim")
            model.decoder.embed_tokens = model.encoder.embed_tokens
        use_kernel_dropout(model)
        return model

    @classmethod
    def build_encoder(
        cls, args: Namespace, src_dict: Dictionary, embed_tokens: nn.Embedding
    ) -> TransformerSRUEncoder:
        return TransformerSRUEncoder(
            TransformerConfig.from_namespace(args), src_dict, embed_tokens)

    @classmethod
    def build_decoder(
        cls, args: Namespace, tgt_dict: Dictionary, embed_tokens: nn.Embedding
    ) -> TransformerSRUDecoder:
        return TransformerSRUDecoder(
            TransformerConfig.from_namespace(args), tgt_dict, embed_tokens,
            no_encoder_attn=args.no_cross_attention)


#: options that have a range, fairseq's among them
CHECKED = (
    "sru_dropout", "dropout", "attention_dropout", "activation_dropout", "encoder_layers",
    "decoder_layers", "encoder_embed_dim", "decoder_embed_dim", "encoder_ffn_embed_dim",
    "decoder_ffn_embed_dim", "encoder_attention_heads", "decoder_attention_heads",
)
DEFAULTS: dict[str, Any] = dict(
    sru_dropout=0.1, sru_bidirectional_encoder=False, share_input_embeddings=False)

# Both of the paper: 32k word pieces shared by the languages, an output of its own, dropout
# everywhere.
WMT = dict(dropout=0.1, attention_dropout=0.1, share_input_embeddings=True)

PRESETS: dict[str, Preset] = {
    "transformer_sru": Preset(10_500),
    # SRU paper, table 3
    "transformer_sru_wmt_en_de": Preset(
        32_000, **WMT, encoder_layers=4, decoder_layers=4, sru_dropout=0.1),
    "transformer_sru_wmt_en_de_5": Preset(
        32_000, **WMT, encoder_layers=5, decoder_layers=5, sru_dropout=0.2),
    # of the size of fairseq's transformer_iwslt_de_en
    "transformer_sru_iwslt_de_en": Preset(
        10_500,
        encoder_layers=4,
        decoder_layers=4,
        encoder_ffn_embed_dim=1024,
        decoder_ffn_embed_dim=1024,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        dropout=0.3,
        sru_dropout=0.3,
        share_decoder_input_output_embed=True,
    ),
    # of the size of the Transformer in examples/multi30k
    "transformer_sru_multi30k": Preset(
        8_000,
        encoder_layers=4,
        decoder_layers=4,
        encoder_embed_dim=128,
        encoder_ffn_embed_dim=128,
        decoder_ffn_embed_dim=128,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        dropout=0.2,
        share_all_embeddings=True,
    ),
    "transformer_sru_tiny": Preset(
        24,
        encoder_layers=2,
        decoder_layers=2,
        encoder_embed_dim=16,
        encoder_ffn_embed_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    ),
}


def _register(name: str, preset: Preset) -> None:
    def architecture(args: Namespace) -> None:
        fill_in({**DEFAULTS, **preset})(args)
        base_architecture(args)

    register_architecture("transformer_sru", name, preset, architecture)


for _name, _preset in PRESETS.items():
    _register(_name, _preset)
