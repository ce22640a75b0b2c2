"""Decoding with trained models on a CPU: packed weights and a search in C++."""

from fairseq_sru.inference.engine import Engine, Hypothesis
from fairseq_sru.inference.search_options import GenerationOptions
from fairseq_sru.inference.weights import PRECISIONS, ModelWeights, read_model

__all__ = [
    "PRECISIONS",
    "Engine",
    "GenerationOptions",
    "Hypothesis",
    "ModelWeights",
    "read_model",
]
