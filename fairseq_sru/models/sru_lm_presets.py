"""Sizes of the SRU paper's language models (table 4), and of a small one for tests."""

from __future__ import annotations

from typing import Any

# The paper gives layers, parameters and the projection; the hidden sizes of 8, 10 and 12 layers,
# the embedding sizes and the dropout are its authors', published with their code. The hidden sizes
# of 6 layers follow from the number of parameters.
ENWIK8 = dict(embed_dim=205)  # as many as types
PROJECTION = dict(proj_size=512, dropout=0.3)

PRESETS: dict[str, dict[str, Any]] = {
    "sru_lm_enwik8_6": dict(**ENWIK8, layers=6, hidden_size=1536),
    "sru_lm_enwik8_10": dict(**ENWIK8),
    "sru_lm_enwik8_6_proj": dict(**ENWIK8, **PROJECTION, layers=6, hidden_size=3264),
    "sru_lm_enwik8_8_proj": dict(**ENWIK8, **PROJECTION, layers=8, hidden_size=3056),
    "sru_lm_enwik8_12_proj": dict(**PROJECTION, embed_dim=256, layers=12, hidden_size=2048),
    "sru_lm_tiny": dict(embed_dim=16, hidden_size=32, layers=2, dropout=0.1, highway_bias=-1.0),
}
