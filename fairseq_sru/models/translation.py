"""The SRU++ translation model and its presets."""

from __future__ import annotations

from typing import Any

from fairseq.models import FairseqEncoderDecoderModel, register_model

from fairseq_sru.models.config import SRUppConfig
from fairseq_sru.models.decoder import SRUppDecoder
from fairseq_sru.models.embedding import build_embedding
from fairseq_sru.models.encoder import SRUppEncoder
from fairseq_sru.models.presets import register_presets


@register_model("srupp", dataclass=SRUppConfig)
class SRUppModel(FairseqEncoderDecoderModel):
    """SRU++ encoder and decoder (SRU++ paper, section 5 and appendix B)."""

    @classmethod
    def build_model(cls, cfg: SRUppConfig, task: Any) -> SRUppModel:
        """Build from options and the task's dictionaries.

        Raises:
            ValueError: --share-all-embeddings with two dictionaries, or impossible sizes.
        """
        source, target = task.source_dictionary, task.target_dictionary
        if cfg.share_all_embeddings and source != target:
            raise ValueError("--share-all-embeddings needs one dictionary for both languages: "
                             "run fairseq-preprocess with --joined-dictionary")
        encoder_embedding = build_embedding(len(source), cfg.embed_dim, source.pad())
        decoder_embedding = (
            encoder_embedding
            if cfg.share_all_embeddings
            else build_embedding(len(target), cfg.embed_dim, target.pad())
        )
        return cls(
            SRUppEncoder(cfg, source, encoder_embedding),
            SRUppDecoder(cfg, target, decoder_embedding),
        )


PRESETS: dict[str, dict[str, Any]] = {
    # SRU++ paper, table 8
    "srupp_iwslt": dict(share_decoder_input_output_embed=True),
    "srupp_iwslt_k2": dict(
        share_decoder_input_output_embed=True,
        encoder_attention="every:2",
        decoder_attention="every:2",
    ),
    # small ones, found by experiment: examples/multi30k/RESULTS.md, examples/demo
    "srupp_multi30k": dict(
        embed_dim=128,
        hidden_size=256,
        proj_size=112,
        num_heads=4,
        encoder_layers=4,
        decoder_layers=4,
        share_all_embeddings=True,
        dropout=0.25,
        embedding_dropout=0.2,
        output_dropout=0.1,
        alpha_init=1.0,
        highway_bias=-1.0,
    ),
    "srupp_demo": dict(
        embed_dim=128,
        hidden_size=256,
        proj_size=64,
        num_heads=4,
        encoder_layers=2,
        decoder_layers=2,
        share_all_embeddings=True,
        dropout=0.1,
        alpha_init=1.0,
        highway_bias=-1.0,
    ),
    "srupp_tiny": dict(
        embed_dim=16,
        hidden_size=32,
        proj_size=8,
        num_heads=2,
        encoder_layers=2,
        decoder_layers=2,
        alpha_init=1.0,
    ),
}

register_presets("srupp", PRESETS)
