"""fairseq models: importing this repairs fairseq and registers the architectures."""

from fairseq_sru import repairs

repairs.apply()

from fairseq_sru.models.classifier import SRUClassifier, SRUppClassifier
from fairseq_sru.models.language_model import SRULanguageModel, SRUppLanguageModel
from fairseq_sru.models.transformer_sru import TransformerSRUModel
from fairseq_sru.models.translation import SRUppModel

__all__ = [
    "SRUClassifier",
    "SRULanguageModel",
    "SRUppClassifier",
    "SRUppLanguageModel",
    "SRUppModel",
    "TransformerSRUModel",
]
