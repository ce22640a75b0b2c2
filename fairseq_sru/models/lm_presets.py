"""Sizes of the SRU++ paper's language models, and of small ones for this repository's recipes."""

from __future__ import annotations

from typing import Any

WIKI103 = dict(embed_dim=1024, adaptive_cutoff="19997,39997,199997", tie_adaptive_proj=True)
BILLION_WORD = dict(
    embed_dim=1024,
    hidden_size=4096,
    proj_size=1024,
    adaptive_cutoff="59998,159998",
    attention_dropout=0.0,
    dropout=0.05,
)

PRESETS: dict[str, dict[str, Any]] = {
    # table 2: 42M parameters each. The paper gives neither the sizes for k > 1, which it adjusts
    # to that number, nor the dropout.
    "srupp_lm_enwik8_small": dict(),
    "srupp_lm_enwik8_small_k2": dict(hidden_size=1984, proj_size=488, attention="every:2"),
    "srupp_lm_enwik8_small_k5": dict(hidden_size=2000, proj_size=496, attention="every:5"),
    "srupp_lm_enwik8_small_k10": dict(hidden_size=2016, proj_size=504, attention="every:10"),
    "srupp_lm_enwik8_small_none": dict(hidden_size=2016, proj_size=504, attention="none"),
    # table 11
    "srupp_lm_enwik8_base": dict(hidden_size=3072, proj_size=768, dropout=0.22),
    "srupp_lm_enwik8_base_k5": dict(
        hidden_size=3072, proj_size=768, dropout=0.22, attention="every:5"
    ),
    "srupp_lm_enwik8_large": dict(hidden_size=4096, proj_size=1024, dropout=0.32),
    "srupp_lm_enwik8_large_r8": dict(hidden_size=6016, proj_size=752, dropout=0.35),
    # table 12
    "srupp_lm_wiki103_base": dict(**WIKI103, hidden_size=3072, proj_size=768, dropout=0.15),
    "srupp_lm_wiki103_large": dict(**WIKI103, hidden_size=4096, proj_size=1024, dropout=0.2),
    "srupp_lm_wiki103_large_r8": dict(**WIKI103, hidden_size=5952, proj_size=744, dropout=0.2),
    "srupp_lm_wiki103_large_r8_k5": dict(
        **WIKI103, hidden_size=5952, proj_size=744, dropout=0.2, attention="every:5"
    ),
    # table 6
    "srupp_lm_billion_word_base": BILLION_WORD,
    "srupp_lm_billion_word_large_k5": dict(
        BILLION_WORD, hidden_size=7616, dropout=0.1, attention="every:5"
    ),
    # small ones: examples/wikitext2, examples/demo_lm
    "srupp_lm_wikitext2": dict(
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
    "srupp_lm_bytes": dict(hidden_size=512, proj_size=128, layers=6, dropout=0.0, alpha_init=1.0),
    "srupp_lm_tiny": dict(
        embed_dim=16, hidden_size=32, proj_size=8, num_heads=2, layers=2, alpha_init=1.0
    ),
}
