"""Options of the sentence classifiers, and their presets."""

# fairseq reads the types of the fields, so no annotation here may be a string

from dataclasses import dataclass, field
from typing import Dict, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from fairseq_sru.models.config import ATTENTION_HELP, SRULayerConfig, SRUppLayerConfig
from fairseq_sru.modules.pooling import POOLINGS
from fairseq_sru.registry import Preset

POOLING_CHOICES = ChoiceEnum(list(POOLINGS))


@dataclass
class ClassifierConfig(FairseqDataclass):
    """What the classifiers share besides the options of their layers."""

    embed_dim: int = field(default=300, metadata={"help": "embedding size"})
    embed_path: Optional[str] = field(
        default=None,
        metadata={"help": "word vectors to start from: word2vec's text or binary format, or "
                          "GloVe's text; the embedding's vectors are then of length 1. Words that "
                          "the file lacks start at random"},
    )
    freeze_embed: bool = field(default=False, metadata={"help": "do not train the embedding"})
    filter_width: int = field(
        default=1,
        metadata={"help": "words that the first layer reads at once: above 1, a convolution of "
                          "the embeddings, as wide as a layer's output, comes before the layers"},
    )
    hidden_size: int = field(
        default=128, metadata={"help": "d, size of every layer's output, per direction"}
    )
    layers: int = field(default=2, metadata={"help": "number of layers"})
    bidirectional: bool = field(default=False, metadata={"help": "read in both directions"})
    pooling: POOLING_CHOICES = field(
        default="last",
        metadata={"help": "what the classes are read from: the output after the last token (in "
                          "each direction), or the mean or the maximum over all tokens"},
    )
    embedding_dropout: Optional[float] = field(
        default=None, metadata={"help": "dropout of the embeddings; default: --dropout"}
    )
    output_dropout: Optional[float] = field(
        default=None, metadata={"help": "dropout of what the classes are read from; default: "
                                        "--dropout"}
    )


FORGET_BIAS_HELP = "start value of b_f; a sentence's first words reach its last state"


@dataclass
class SRUClassifierConfig(ClassifierConfig, SRULayerConfig):
    """Sizes default to those of the SRU paper's two layers (table 1)."""

    dropout: float = field(default=0.5, metadata={"help": "dropout of the recurrence"})
    forget_bias: float = field(default=2.0, metadata={"help": FORGET_BIAS_HELP})
    highway_bias: float = field(default=0.0, metadata={"help": "start value of b_r"})


@dataclass
class SRUppClassifierConfig(ClassifierConfig, SRUppLayerConfig):
    """Two layers as wide as those of :class:`SRUClassifierConfig`, of which the upper attends."""

    dropout: float = field(
        default=0.5, metadata={"help": "dropout of Wo's input and of the recurrence"}
    )
    proj_size: int = field(default=64, metadata={"help": "d', attention size"})
    attention: str = field(default="last:1", metadata={"help": ATTENTION_HELP})
    alpha_init: float = field(default=1.0, metadata={"help": "start value of alpha"})
    forget_bias: float = field(default=2.0, metadata={"help": FORGET_BIAS_HELP})
    highway_bias: float = field(default=0.0, metadata={"help": "start value of b_r"})


SST2 = 16_192  # words of train, as fairseq-preprocess counts them

SRU_PRESETS: Dict[str, Preset] = {
    # SRU paper, table 1
    "sru_classifier_2": Preset(SST2),
    "sru_classifier_4": Preset(SST2, layers=4),
    "sru_classifier_8": Preset(SST2, layers=8),
    "qrnn_classifier": Preset(SST2, no_weight_c=True),
    # for an embedding learned from scratch: examples/classification/RESULTS.md
    "sru_classifier_bidirectional": Preset(SST2, layers=1, bidirectional=True, pooling="max"),
    "sru_classifier_filters": Preset(
        SST2, filter_width=3, layers=1, bidirectional=True, pooling="max"),
    # for tests
    "sru_classifier_tiny": Preset(40, embed_dim=12, hidden_size=16, dropout=0.1),
}
