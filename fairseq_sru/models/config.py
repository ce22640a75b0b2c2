"""Options of layers and of the translation model, and its presets."""

# fairseq reads the types of the fields, so no annotation here may be a string

from dataclasses import dataclass, field
from typing import Any, Dict, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from fairseq_sru.registry import Preset

LAYER_NORM_CHOICES = ChoiceEnum(["none", "pre", "post"])
ATTENTION_HELP = "layers that attend: all, none, every:K, last:N, or numbers from 1 such as 3,6"


@dataclass
class LayerConfig(FairseqDataclass):
    """Options that SRU and SRU++ layers share. Each has the name that it has in
    ``fairseq_sru.modules``; a switch ``no_x`` is x=False there."""

    dropout: float = field(default=0.1, metadata={"help": "dropout of the recurrence"})
    layer_norm: LAYER_NORM_CHOICES = field(
        default="none", metadata={"help": "layer norm of whole layers"}
    )
    forget_bias: float = field(
        default=0.0,
        metadata={"help": "start value of b_f; above 0 the cells remember longer at first"},
    )
    highway_bias: float = field(default=-2.0, metadata={"help": "start value of b_r"})
    checkpoint_activations: bool = field(
        default=False,
        metadata={"help": "keep only the layers' inputs for the backward pass, and compute the "
                          "rest anew: less memory, a third more time"},
    )


@dataclass
class SRULayerConfig(LayerConfig):
    """Options of SRU layers."""

    no_weight_c: bool = field(
        default=False,
        metadata={"help": "gates do not read c: with the highway, QRNN of width 1"},
    )
    no_rescale: bool = field(
        default=False,
        metadata={"help": "do not scale the highway input by sqrt(1 + 2 exp(b_r))"},
    )
    no_highway: bool = field(default=False, metadata={"help": "h = r * c"})
    project_input: bool = field(
        default=False,
        metadata={"help": "map embeddings to --hidden-size before the first layer; by default, if "
                          "the sizes differ, its highway input is computed from them"},
    )


@dataclass
class SRUppLayerConfig(LayerConfig):
    """Options of SRU++ layers."""

    dropout: float = field(
        default=0.1, metadata={"help": "dropout of Wo's input and of the recurrence"}
    )
    num_heads: int = field(default=1, metadata={"help": "attention heads; divides --proj-size"})
    attention_dropout: Optional[float] = field(
        default=0.0, metadata={"help": "dropout of attention weights"}
    )
    alpha_init: float = field(default=0.0, metadata={"help": "start value of alpha"})
    rescale: bool = field(
        default=False, metadata={"help": "scale the highway input by sqrt(1 + 2 exp(b_r))"}
    )
    no_attention_norm: bool = field(
        default=False, metadata={"help": "no layer norm before Wo"}
    )
    srupp_compile: bool = field(
        default=False,
        metadata={"help": "compile the layers by torch.compile; needs a C++ compiler on a CPU"},
    )


@dataclass
class SRUppConfig(SRUppLayerConfig):
    """Sizes default to those of the paper's IWSLT'14 model (table 8)."""

    embed_dim: int = field(default=256, metadata={"help": "embedding size"})
    encoder_embed_path: Optional[str] = field(
        default=None,
        metadata={"help": "word vectors that the source embedding starts from: word2vec's text "
                          "or binary format, or GloVe's text; with --share-all-embeddings, both"},
    )
    decoder_embed_path: Optional[str] = field(
        default=None, metadata={"help": "word vectors that the target embedding starts from"}
    )
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


# found by experiment: examples/multi30k/RESULTS.md
_MULTI30K: Dict[str, Any] = dict(
    embed_dim=128,
    hidden_size=256,
    proj_size=112,
    num_heads=4,
    share_all_embeddings=True,
    scale_embeddings=True,
    dropout=0.25,
    embedding_dropout=0.2,
    output_dropout=0.1,
    alpha_init=1.0,
    highway_bias=-1.0,
)

PRESETS: Dict[str, Preset] = {
    # SRU++ paper, table 8; 21k types in all
    "srupp_iwslt": Preset(10_500, share_decoder_input_output_embed=True),
    "srupp_iwslt_k2": Preset(
        10_500,
        share_decoder_input_output_embed=True,
        encoder_attention="every:2",
        decoder_attention="every:2",
    ),
    # a decoder of two layers, whose steps cost a third (Kasai et al., 2021)
    "srupp_iwslt_10_2": Preset(
        10_500, share_decoder_input_output_embed=True, encoder_layers=10, decoder_layers=2),
    # small ones
    "srupp_multi30k": Preset(8_000, **_MULTI30K, encoder_layers=4, decoder_layers=4),
    "srupp_multi30k_6_2": Preset(8_000, **_MULTI30K, encoder_layers=6, decoder_layers=2),
    "srupp_demo": Preset(
        2_000,
        embed_dim=128,
        hidden_size=256,
        proj_size=64,
        num_heads=4,
        encoder_layers=2,
        decoder_layers=2,
        share_all_embeddings=True,
        dropout=0.1,
        alpha_init=1.0,
        highway_bias=-1.0,
    ),
    "srupp_tiny": Preset(
        24,
        embed_dim=16,
        hidden_size=32,
        proj_size=8,
        num_heads=2,
        encoder_layers=2,
        decoder_layers=2,
        alpha_init=1.0,
    ),
}
