"""Options of language modelling on streams."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.data.indexed_dataset import get_available_dataset_impl
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II


@dataclass
class StreamLanguageModelingConfig(FairseqDataclass):
    data: Optional[str] = field(
        default=None, metadata={"help": "folder written by fairseq-preprocess --only-source"}
    )
    tokens_per_sample: int = field(
        default=512,
        metadata={"help": "M, tokens of each stream in a batch; in training they attend to the M "
                          "tokens before their segment too"},
    )
    eval_segment: Optional[int] = field(
        default=None,
        metadata={"help": "tokens of each stream in a batch of validation and evaluation, which "
                          "matters for speed only; default: --tokens-per-sample"},
    )
    eval_context: Optional[int] = field(
        default=None,
        metadata={"help": "how many tokens before itself a token sees in validation and "
                          "evaluation; default: --tokens-per-sample"},
    )
    dynamic_lr: float = field(
        default=0.0,
        metadata={"help": "learning rate of dynamic evaluation in fairseq-eval-lm: after every "
                          "segment of --eval-segment tokens the model learns from it (Krause et "
                          "al., 2018); 0: it stays what it is"},
    )
    dynamic_decay: float = field(
        default=0.02,
        metadata={"help": "how fast a model that learns in evaluation goes back to what it was"},
    )
    dynamic_epsilon: float = field(
        default=1e-4,
        metadata={"help": "added to the root mean square by which gradients are divided"},
    )
    dynamic_batches: int = field(
        default=200,
        metadata={"help": "number of batches, as large as those evaluated, of the training text "
                          "on which gradients are measured"},
    )
    unit: ChoiceEnum(["word", "character"]) = field(
        default="word",
        metadata={"help": "what a token is; of characters or bytes, bits per character (bpc) is "
                          "reported too"},
    )
    train_subset: str = II("dataset.train_subset")
    dataset_impl: Optional[ChoiceEnum(get_available_dataset_impl())] = II("dataset.dataset_impl")
