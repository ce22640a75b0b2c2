"""Forward and backward pass never wait for the device: no value decides what is launched next.

Tensors of PyTorch's meta device have no values, so that whatever asks for one fails. They go the
GPU's way wherever code asks whether it runs on the CPU. Adaptive input and softmax are fairseq's,
and do ask.
"""

import argparse
import importlib

import pytest
import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.data import Dictionary

from fairseq_sru.models.config import PRESETS, SRUppConfig
from fairseq_sru.models.language_model import SRUppLanguageModel
from fairseq_sru.models.lm_config import SRUPP_PRESETS as LM_PRESETS
from fairseq_sru.models.lm_config import SRUppLMConfig
from fairseq_sru.models.translation import SRUppModel
from fairseq_sru.ops import varlen
from fairseq_sru.state import StreamMemory

attention_module = importlib.import_module("fairseq_sru.ops.attention")


@pytest.fixture
def task():
    words = Dictionary()
    for i in range(20):
        words.add_symbol(f"w{i}")
    return argparse.Namespace(source_dictionary=words, target_dictionary=words, dictionary=words)


def tokens(batch, length):
    return torch.zeros(batch, length, dtype=torch.long, device="meta")


def assert_every_parameter_has_a_gradient(model):
    assert all(p.grad is not None for p in model.parameters())


def test_meta_tensors_fail_when_read():
    with pytest.raises(RuntimeError, match="meta"):
        bool(tokens(1, 1).any())


@pytest.mark.parametrize("packed", [False] + [True] * (varlen.kernel() is not None))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_translation(task, dtype, packed, monkeypatch):
    monkeypatch.setattr(attention_module, "suits_varlen", lambda *inputs: packed and not inputs[-1])
    options = SRUppConfig(**PRESETS["srupp_tiny"], dropout=0.1, embedding_dropout=0.1)
    with torch.device("meta"):
        model = SRUppModel.build_model(options, task).to(dtype).train()
    criterion = LabelSmoothedCrossEntropyCriterion(task, True, 0.1)
    sample = {
        "net_input": {"src_tokens": tokens(4, 9), "src_lengths": tokens(4, 1),
                      "prev_output_tokens": tokens(4, 7)},
        "target": tokens(4, 7), "ntokens": 25,
    }
    loss, size, _ = criterion(model, sample)
    loss.backward()
    assert size == 4
    assert_every_parameter_has_a_gradient(model)


@pytest.mark.parametrize("padded", [False, True])
def test_language_model_with_memory(task, padded):
    options = SRUppLMConfig(**LM_PRESETS["srupp_lm_tiny"], dropout=0.1)
    with torch.device("meta"):
        model = SRUppLanguageModel.build_model(options, task).train()
    criterion = CrossEntropyCriterion(task, True)
    memory = StreamMemory(train_context=6, eval_context=6)
    for _ in range(3):
        inputs = {"src_tokens": tokens(4, 6), "memory": memory, "padded": padded}
        sample = {"net_input": inputs, "target": tokens(4, 6), "ntokens": 24}
        criterion(model, sample)[0].backward()
        memory = memory.next()
    assert_every_parameter_has_a_gradient(model)
