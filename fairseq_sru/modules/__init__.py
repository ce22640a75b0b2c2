"""Layers and stacks that work without fairseq."""

from fairseq_sru.modules.sru import SRU, SRULayer
from fairseq_sru.modules.srupp import SRUpp
from fairseq_sru.modules.srupp_layer import SRUppLayer

__all__ = ["SRU", "SRULayer", "SRUpp", "SRUppLayer"]
