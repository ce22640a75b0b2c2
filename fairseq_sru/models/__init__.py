"""fairseq models: importing this registers the architectures."""

from fairseq_sru.models.language_model import SRUppLanguageModel
from fairseq_sru.models.transformer_sru import TransformerSRUModel
from fairseq_sru.models.translation import SRUppModel

__all__ = ["SRUppLanguageModel", "SRUppModel", "TransformerSRUModel"]
