"""Layers and stacks that work without fairseq."""

from fairseq_sru.modules.pooling import pool
from fairseq_sru.modules.sru import SRU, SRULayer
from fairseq_sru.modules.srupp import SRUpp, SRUppLayer
from fairseq_sru.modules.stack import Stack, StackOutput

__all__ = ["SRU", "SRULayer", "SRUpp", "SRUppLayer", "Stack", "StackOutput", "pool"]
