"""The elementwise recurrence, attention, linear maps and dropout that SRU and SRU++ are made of,
and the losses that train them."""

from fairseq_sru.ops.attention import attention, attention_mask
from fairseq_sru.ops.cross_entropy import cross_entropy, divergence
from fairseq_sru.ops.dropout import dropout
from fairseq_sru.ops.linear import Linear, linear
from fairseq_sru.ops.recurrence import recurrence
from fairseq_sru.ops.reference import recurrence_ref
from fairseq_sru.ops.step_attention import step_attention
from fairseq_sru.ops.tanh import recurrence_tanh

__all__ = [
    "Linear",
    "attention",
    "attention_mask",
    "cross_entropy",
    "divergence",
    "dropout",
    "linear",
    "recurrence",
    "recurrence_ref",
    "recurrence_tanh",
    "step_attention",
]
