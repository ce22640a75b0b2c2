"""Options of the SRU language model."""

from dataclasses import Field, dataclass, field, fields
from typing import Optional

from fairseq.dataclass import FairseqDataclass

from fairseq_sru.models.config import LAYER_NORM_CHOICES
from fairseq_sru.models.lm_config import SRUppLMConfig


def _like_srupp(name: str) -> Field:
    """The option of this name of the SRU++ language model."""
    (option,) = (option for option in fields(SRUppLMConfig) if option.name == name)
    return field(default=option.default, metadata=option.metadata)


@dataclass
class SRULMConfig(FairseqDataclass):
    """Sizes default to those of the paper's 10 layers without projection (table 4)."""

    embed_dim: Optional[int] = _like_srupp("embed_dim")
    hidden_size: int = field(default=1152, metadata={"help": "d, size of every layer's output"})
    proj_size: Optional[int] = field(
        default=None,
        metadata={"help": "replace every layer's matrix by two with so many features between "
                          "them, below --hidden-size; default: do not"},
    )
    layers: int = field(default=10, metadata={"help": "number of layers"})
    project_input: bool = field(
        default=False,
        metadata={"help": "map embeddings to --hidden-size before the first layer; by default, if "
                          "the sizes differ, its highway input is computed from them"},
    )
    dropout: float = field(default=0.2, metadata={"help": "dropout of the recurrence"})
    embedding_dropout: Optional[float] = _like_srupp("embedding_dropout")
    output_dropout: Optional[float] = _like_srupp("output_dropout")
    highway_bias: float = field(default=-3.0, metadata={"help": "start value of b_r"})
    no_weight_c: bool = field(
        default=False,
        metadata={"help": "gates do not read c: with the highway, QRNN of width 1"},
    )
    no_rescale: bool = field(
        default=False,
        metadata={"help": "do not scale the highway input by sqrt(1 + 2 exp(b_r))"},
    )
    no_highway: bool = field(default=False, metadata={"help": "h = r * c"})
    layer_norm: LAYER_NORM_CHOICES = _like_srupp("layer_norm")
    share_decoder_input_output_embed: bool = _like_srupp("share_decoder_input_output_embed")
    adaptive_cutoff: Optional[str] = _like_srupp("adaptive_cutoff")
    adaptive_factor: float = _like_srupp("adaptive_factor")
    tie_adaptive_proj: bool = _like_srupp("tie_adaptive_proj")
