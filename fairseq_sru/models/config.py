"""Options of SRU++ layers and of the translation model."""

from dataclasses import dataclass, field

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

LAYER_NORM_CHOICES = ChoiceEnum(["none", "pre", "post"])
ATTENTION_HELP = "layers that attend: all, none, every:K, last:N, or numbers from 1 such as 3,6"


@dataclass
class StackConfig(FairseqDataclass):
    """What the SRU++ layers of all models share."""

    num_heads: int = field(default=1, metadata={"help": "attention heads; divides --proj-size"})
    dropout: float = field(
        default=0.1, metadata={"help": "dropout of Wo's input and of the recurrence"}
    )
    alpha_init: float = field(default=0.0, metadata={"help": "start value of alpha"})
    highway_bias: float = field(default=-2.0, metadata={"help": "start value of b_r"})
    rescale: bool = field(
        default=False, metadata={"help": "scale the highway input by sqrt(1 + 2 exp(b_r))"}
    )
    no_attention_norm: bool = field(
        default=False, metadata={"help": "no layer norm before Wo"}
    )
    layer_norm: LAYER_NORM_CHOICES = field(
        default="none", metadata={"help": "layer norm of whole layers"}
    )
    checkpoint_activations: bool = field(
        default=False,
        metadata={"help": "keep only the layers' inputs for the backward pass, and compute the "
                          "rest anew: less memory, a third more time"},
    )
    srupp_compile: bool = field(
        default=False,
        metadata={"help": "compile the layers by torch.compile; needs a C++ compiler on a CPU"},
    )


@dataclass
class SRUppConfig(StackConfig):
    """Sizes default to those of the paper's IWSLT'14 model (table 8)."""

    embed_dim: int = field(default=256, metadata={"help": "embedding size"})
    hidden_size: int = field(
        default=1024, metadata={"help": "d, size of every layer's output over all directions"}
    )
    proj_size: int = field(default=256, metadata={"help": "d', attention size"})
    encoder_layers: int = field(default=6, metadata={"help": "encoder layers"})
    decoder_layers: int = field(default=6, metadata={"help": "decoder layers"})
    encoder_attention: str = field(default="all", metadata={"help": "encoder " + ATTENTION_HELP})
    decoder_attention: str = field(default="all", metadata={"help": "decoder " + ATTENTION_HELP})
    encoder_bidirectional: bool = field(
        default=False, metadata={"help": "half of the encoder's channels read right to left"}
    )
    no_encoder_output_norm: bool = field(
        default=False,
        metadata={"help": "hand the encoder's output to the decoder without layer norm, as in the "
                          "paper's equation; alignment is learnt far more slowly"},
    )
    attention_dropout: float = field(default=0.0, metadata={"help": "dropout of attention weights"})
    embedding_dropout: float = field(default=0.0, metadata={"help": "dropout of the embeddings"})
    output_dropout: float = field(
        default=0.0, metadata={"help": "dropout of the last layer's output"}
    )
    scale_embeddings: bool = field(
        default=False, metadata={"help": "multiply embeddings by sqrt(embedding size)"}
    )
    share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "tie the output to the target embedding"}
    )
    share_all_embeddings: bool = field(
        default=False, metadata={"help": "one embedding for source, target and output"}
    )
    max_source_positions: int = field(
        default=100000, metadata={"help": "longest source; the model itself has no limit"}
    )
    max_target_positions: int = field(
        default=100000, metadata={"help": "longest target; the model itself has no limit"}
    )
