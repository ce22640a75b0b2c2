"""The SRU++ translation model and its presets."""

from __future__ import annotations

from typing import Any

from fairseq.models import FairseqEncoderDecoderModel

from fairseq_sru.models.config import PRESETS, SRUppConfig
from fairseq_sru.models.decoder import SRUppDecoder
from fairseq_sru.models.embedding import build_embedding
from fairseq_sru.models.encoder import SRUppEncoder
from fairseq_sru.options import check_config
from fairseq_sru.registry import register_model, register_presets


@register_model("srupp", dataclass=SRUppConfig)
class SRUppModel(FairseqEncoderDecoderModel):
    """SRU++ encoder and decoder (SRU++ paper, section 5 and appendix B)."""

    @classmethod
    def build_model(cls, cfg: SRUppConfig, task: Any) -> SRUppModel:
        """Build from options and the task's dictionaries.

        Raises:
            ValueError: --share-all-embeddings with two dictionaries, or impossible sizes.
        """
        check_config(cfg, SRUppConfig)
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


register_presets("srupp", PRESETS)
