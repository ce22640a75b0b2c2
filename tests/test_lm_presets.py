"""Every language model of the SRU++ paper: its size, and that it trains, resumes and is scored."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary
from test_stream_task import evaluate, train

from fairseq_sru.models.language_model import SRUppLanguageModel
from fairseq_sru.models.lm_config import SRUPP_PRESETS as PRESETS
from fairseq_sru.models.lm_config import SRUppLMConfig

ENWIK8, WIKI103, BILLION_WORD = 205, 267735, 793471  # types, as in the papers
PUBLISHED = {
    "srupp_lm_enwik8_small": (ENWIK8, 42),
    "srupp_lm_enwik8_small_k2": (ENWIK8, 42),
    "srupp_lm_enwik8_small_k5": (ENWIK8, 42),
    "srupp_lm_enwik8_small_k10": (ENWIK8, 42),
    "srupp_lm_enwik8_small_none": (ENWIK8, 42),
    "srupp_lm_enwik8_base": (ENWIK8, 108),
    "srupp_lm_enwik8_base_k5": (ENWIK8, 98),
    "srupp_lm_enwik8_large": (ENWIK8, 191),
    "srupp_lm_enwik8_large_r8": (ENWIK8, 195),
    "srupp_lm_wiki103_base": (WIKI103, 148),
    "srupp_lm_wiki103_large": (WIKI103, 232),
    "srupp_lm_wiki103_large_r8": (WIKI103, 234),
    "srupp_lm_wiki103_large_r8_k5": (WIKI103, 225),
    "srupp_lm_billion_word_base": (BILLION_WORD, 328),
    "srupp_lm_billion_word_large_k5": (BILLION_WORD, 465),
}
SHRUNK = ["--hidden-size", "32", "--proj-size", "8", "--layers", "5"]
SMALL_BANDS = ["--embed-dim", "16", "--adaptive-cutoff", "8,20", "--criterion", "adaptive_loss",
               "--ddp-backend", "legacy_ddp"]


class Types(Dictionary):
    """A dictionary of ``size`` types that holds none of them."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def __len__(self):
        return self.size


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    """SRU++ paper, tables 2, 3, 6, 11 and 12, to their rounding."""
    types, millions = PUBLISHED[name]
    task = SimpleNamespace(target_dictionary=Types(types))
    with torch.device("meta"):
        model = SRUppLanguageModel.build_model(SRUppLMConfig(**PRESETS[name]), task)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions
    attending = [layer.kv_proj is not None for layer in model.decoder.stack.layers]
    every = int(name.rpartition("_k")[2]) if "_k" in name else 1
    expected = [not name.endswith("none") and (i + 1) % every == 0 for i in range(10)]
    assert attending == expected


def test_every_published_preset_is_there():
    own = {"srupp_lm_wikitext2", "srupp_lm_bytes", "srupp_lm_tiny"}
    assert PUBLISHED.keys() | own == PRESETS.keys()


@pytest.mark.parametrize("name", [
    "srupp_lm_enwik8_small", "srupp_lm_enwik8_small_k5", "srupp_lm_enwik8_small_none",
    "srupp_lm_wiki103_base", "srupp_lm_billion_word_large_k5", "srupp_lm_wikitext2",
    "srupp_lm_bytes",
])
def test_presets_train_resume_and_are_scored(lm_data, tmp_path, name):
    """20 updates with narrow layers; the memory, ties and softmax are the preset's."""
    bands = SMALL_BANDS if "adaptive_cutoff" in PRESETS[name] else []
    options = ["--arch", name, *SHRUNK, *bands, "--clip-norm", "1.0", "--weight-decay", "0.1",
               "--lr-scheduler", "cosine", "--warmup-updates", "5", "--lr", "0.01",
               "--lr-period-updates", "20"]
    path = train(lm_data, tmp_path, *options, "--max-update", "4", "--disable-validation")
    first = evaluate(lm_data, path, "--eval-context", "8")
    path = train(lm_data, tmp_path, *options, "--max-update", "20", "--disable-validation")
    state = torch.load(path, weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 20
    assert evaluate(lm_data, path, "--eval-context", "8") < first


@pytest.mark.parametrize("missing", ["generation_context", "srupp_compile", "tie_adaptive_proj"])
def test_a_checkpoint_older_than_an_option_is_read(lm_data, tmp_path, missing):
    path = train(lm_data, tmp_path, "--arch", "srupp_lm_tiny", "--max-update", "2",
                 "--disable-validation")
    expected = evaluate(lm_data, path)
    state = torch.load(path, weights_only=True)
    del state["cfg"]["model"][missing]
    torch.save(state, path)
    assert evaluate(lm_data, path) == expected
