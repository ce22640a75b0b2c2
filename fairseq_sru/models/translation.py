"""The SRU++ translation model and its presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from fairseq.models import FairseqEncoderDecoderModel
from torch import Tensor, nn

from fairseq_sru.models.config import PRESETS, SRUppConfig
from fairseq_sru.models.decoder import DecoderOut, SRUppDecoder
from fairseq_sru.models.embedding import build_embedding, load_vectors
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
            ValueError: --share-all-embeddings with two dictionaries or two files of vectors,
                malformed vectors, --load-alignments without attention that could learn them, or
                impossible sizes.
        """
        check_config(cfg, SRUppConfig)
        source, target = task.source_dictionary, task.target_dictionary
        if cfg.share_all_embeddings and source != target:
            raise ValueError("--share-all-embeddings needs one dictionary for both languages: "
                             "run fairseq-preprocess with --joined-dictionary")
        if cfg.share_all_embeddings and cfg.decoder_embed_path not in (
                None, cfg.encoder_embed_path):
            raise ValueError("--share-all-embeddings has one embedding: give its vectors by "
                             "--encoder-embed-path and leave out --decoder-embed-path")
        encoder_embedding = _embedding(cfg, source, cfg.encoder_embed_path)
        decoder_embedding = (
            encoder_embedding
            if cfg.share_all_embeddings
            else _embedding(cfg, target, cfg.decoder_embed_path)
        )
        model = cls(
            SRUppEncoder(cfg, source, encoder_embedding),
            SRUppDecoder(cfg, target, decoder_embedding),
        )
        aligned = getattr(getattr(task, "cfg", None), "load_alignments", False)
        if aligned and not model.decoder.stack.attends:
            raise ValueError("--load-alignments needs a decoder that attends to the source: leave "
                             "out --decoder-attention none")
        return model

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None,
        prev_output_tokens: Tensor,
        return_all_hiddens: bool = True,
        features_only: bool = False,
        alignment_layer: int | None = None,
        alignment_heads: int | None = None,
    ) -> DecoderOut:
        """:meth:`SRUppDecoder.forward` of the encoded source.

        Args:
            src_tokens: (B, S). prev_output_tokens: (B, T).
        """
        encoder_out = self.encoder(
            src_tokens, src_lengths, return_all_hiddens=return_all_hiddens)
        return self.decoder(
            prev_output_tokens, encoder_out, features_only=features_only,
            alignment_layer=alignment_layer, alignment_heads=alignment_heads,
            return_all_hiddens=return_all_hiddens)


def _embedding(cfg: SRUppConfig, dictionary: Dictionary, path: str | None) -> nn.Embedding:
    embedding = build_embedding(len(dictionary), cfg.embed_dim, dictionary.pad())
    if path is not None:
        load_vectors(embedding, Path(path), dictionary)
    return embedding


register_presets("srupp", PRESETS)
