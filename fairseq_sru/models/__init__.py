"""fairseq models: importing this registers the architectures."""

from fairseq_sru.models.translation import SRUppModel

__all__ = ["SRUppModel"]
