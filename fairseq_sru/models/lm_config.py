"""Options of the language models, and their presets."""

# fairseq reads the types of the fields, so no annotation here may be a string

from dataclasses import dataclass, field
from typing import Dict, Optional

from fairseq.dataclass import FairseqDataclass

from fairseq_sru.models.config import ATTENTION_HELP, SRULayerConfig, SRUppLayerConfig
from fairseq_sru.registry import Preset


@dataclass
class LMConfig(FairseqDataclass):
    """What the language models share besides the options of their layers."""

    embed_dim: Optional[int] = field(
        default=None,
        metadata={"help": "embedding size, of the most frequent words if adaptive; default: "
                          "--hidden-size"},
    )
    hidden_size: int = field(default=1920, metadata={"help": "d, size of every layer's output"})
    layers: int = field(default=10, metadata={"help": "number of layers"})
    embedding_dropout: Optional[float] = field(
        default=None, metadata={"help": "dropout of the embeddings; default: --dropout"}
    )
    output_dropout: Optional[float] = field(
        default=None, metadata={"help": "dropout of the last layer's output; default: --dropout"}
    )
    share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "tie the output to the embedding"}
    )
    adaptive_cutoff: Optional[str] = field(
        default=None,
        metadata={"help": "adaptive input and softmax with tied embeddings: numbers of the most "
                          "frequent words, such as 19997,39997,199997; train with "
                          "--criterion adaptive_loss"},
    )
    adaptive_factor: float = field(
        default=4.0, metadata={"help": "by how much the embedding shrinks from band to band"}
    )
    tie_adaptive_proj: bool = field(
        default=False, metadata={"help": "tie the projections of adaptive input and softmax"}
    )
    max_target_positions: Optional[int] = field(
        default=None,
        metadata={"help": "most tokens of a text; default: that of the task, or any number"},
    )


@dataclass
class SRUppLMConfig(LMConfig, SRUppLayerConfig):
    """Sizes default to those of the SRU++ paper's 42M enwik8 model (table 2)."""

    proj_size: int = field(default=480, metadata={"help": "d', attention size"})
    attention: str = field(default="all", metadata={"help": ATTENTION_HELP})
    attention_dropout: Optional[float] = field(
        default=None, metadata={"help": "dropout of attention weights; default: --dropout"}
    )
    project_memory: bool = field(
        default=False,
        metadata={"help": "carry keys and values from segment to segment instead of layer inputs: "
                          "less memory and quicker, since they are not computed anew; they are "
                          "those of the parameters that read them, and teach none"},
    )
    generation_context: Optional[int] = field(
        default=None,
        metadata={"help": "how many tokens before itself a token sees in generation, which bounds "
                          "time and memory; default: all. For a trained model: --model-overrides "
                          "\"{'generation_context': 512}\""},
    )


@dataclass
class SRULMConfig(LMConfig, SRULayerConfig):
    """Sizes default to those of the SRU paper's 10 layers without projection (table 4)."""

    hidden_size: int = field(default=1152, metadata={"help": "d, size of every layer's output"})
    proj_size: Optional[int] = field(
        default=None,
        metadata={"help": "replace every layer's matrix by two with so many features between "
                          "them, below --hidden-size; default: do not"},
    )
    dropout: float = field(default=0.2, metadata={"help": "dropout of the recurrence"})
    highway_bias: float = field(default=-3.0, metadata={"help": "start value of b_r"})


# dictionaries of examples/: as many types as the papers', padded to a multiple of 8
ENWIK8 = 208
WIKI103 = 267_744
BILLION_WORD = 793_472

_WIKI103 = dict(embed_dim=1024, adaptive_cutoff="19997,39997,199997", tie_adaptive_proj=True)
_BILLION_WORD = dict(
    embed_dim=1024,
    proj_size=1024,
    adaptive_cutoff="59998,159998",
    attention_dropout=0.0,
)

SRUPP_PRESETS: Dict[str, Preset] = {
    # SRU++ paper, table 2: 42M parameters each. It gives neither the sizes for k > 1, which it
    # adjusts to that number, nor the dropout.
    "srupp_lm_enwik8_small": Preset(ENWIK8),
    "srupp_lm_enwik8_small_k2": Preset(
        ENWIK8, hidden_size=1984, proj_size=488, attention="every:2"),
    "srupp_lm_enwik8_small_k5": Preset(
        ENWIK8, hidden_size=2000, proj_size=496, attention="every:5"),
    "srupp_lm_enwik8_small_k10": Preset(
        ENWIK8, hidden_size=2016, proj_size=504, attention="every:10"),
    "srupp_lm_enwik8_small_none": Preset(
        ENWIK8, hidden_size=2016, proj_size=504, attention="none"),
    # table 11
    "srupp_lm_enwik8_base": Preset(ENWIK8, hidden_size=3072, proj_size=768, dropout=0.22),
    "srupp_lm_enwik8_base_k5": Preset(
        ENWIK8, hidden_size=3072, proj_size=768, dropout=0.22, attention="every:5"),
    "srupp_lm_enwik8_large": Preset(ENWIK8, hidden_size=4096, proj_size=1024, dropout=0.32),
    "srupp_lm_enwik8_large_r8": Preset(ENWIK8, hidden_size=6016, proj_size=752, dropout=0.35),
    # table 12
    "srupp_lm_wiki103_base": Preset(
        WIKI103, **_WIKI103, hidden_size=3072, proj_size=768, dropout=0.15),
    "srupp_lm_wiki103_large": Preset(
        WIKI103, **_WIKI103, hidden_size=4096, proj_size=1024, dropout=0.2),
    "srupp_lm_wiki103_large_r8": Preset(
        WIKI103, **_WIKI103, hidden_size=5952, proj_size=744, dropout=0.2),
    "srupp_lm_wiki103_large_r8_k5": Preset(
        WIKI103, **_WIKI103, hidden_size=5952, proj_size=744, dropout=0.2, attention="every:5"),
    # table 6
    "srupp_lm_billion_word_base": Preset(
        BILLION_WORD, **_BILLION_WORD, hidden_size=4096, dropout=0.05),
    "srupp_lm_billion_word_large_k5": Preset(
        BILLION_WORD, **_BILLION_WORD, hidden_size=7616, dropout=0.1, attention="every:5"),
    # small ones: examples/wikitext2, examples/demo_lm
    "srupp_lm_wikitext2": Preset(
        33_280,
        embed_dim=256,
        hidden_size=1024,
        proj_size=256,
        layers=3,
        adaptive_cutoff="2000,10000",
        adaptive_factor=1.0,
        dropout=0.35,
        attention_dropout=0.1,
        alpha_init=1.0,
    ),
    "srupp_lm_bytes": Preset(
        264, hidden_size=512, proj_size=128, layers=6, dropout=0.0, alpha_init=1.0),
    "srupp_lm_tiny": Preset(
        40, embed_dim=16, hidden_size=32, proj_size=8, num_heads=2, layers=2, alpha_init=1.0),
}

# The SRU paper gives layers, parameters and the projection; the hidden sizes of 8, 10 and 12
# layers, the embedding sizes and the dropout are its authors', published with their code. The
# hidden sizes of 6 layers follow from the number of parameters.
_PROJECTION = dict(proj_size=512, dropout=0.3)

SRU_PRESETS: Dict[str, Preset] = {
    # table 4; embeddings as wide as there are types
    "sru_lm_enwik8_6": Preset(ENWIK8, embed_dim=205, layers=6, hidden_size=1536),
    "sru_lm_enwik8_10": Preset(ENWIK8, embed_dim=205),
    "sru_lm_enwik8_6_proj": Preset(
        ENWIK8, **_PROJECTION, embed_dim=205, layers=6, hidden_size=3264),
    "sru_lm_enwik8_8_proj": Preset(
        ENWIK8, **_PROJECTION, embed_dim=205, layers=8, hidden_size=3056),
    "sru_lm_enwik8_12_proj": Preset(
        ENWIK8, **_PROJECTION, embed_dim=256, layers=12, hidden_size=2048),
    # for tests
    "sru_lm_tiny": Preset(
        40, embed_dim=16, hidden_size=32, layers=2, dropout=0.1, highway_bias=-1.0),
}
