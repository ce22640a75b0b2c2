"""Options of the SRU++ language model."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq_sru.models.config import ATTENTION_HELP, StackConfig


@dataclass
class SRUppLMConfig(StackConfig):
    """Sizes default to those of the paper's 42M enwik8 model (table 2)."""

    embed_dim: Optional[int] = field(
        default=None,
        metadata={"help": "embedding size, of the most frequent words if adaptive; default: "
                          "--hidden-size"},
    )
    hidden_size: int = field(default=1920, metadata={"help": "d, size of every layer's output"})
    proj_size: int = field(default=480, metadata={"help": "d', attention size"})
    layers: int = field(default=10, metadata={"help": "number of layers"})
    attention: str = field(default="all", metadata={"help": ATTENTION_HELP})
    attention_dropout: Optional[float] = field(
        default=None, metadata={"help": "dropout of attention weights; default: --dropout"}
    )
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
    generation_context: Optional[int] = field(
        default=None,
        metadata={"help": "how many tokens before itself a token sees in generation, which bounds "
                          "time and memory; default: all. For a trained model: --model-overrides "
                          "\"{'generation_context': 512}\""},
    )
