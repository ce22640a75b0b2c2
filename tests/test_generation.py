"""fairseq's generators that are the engine: of the model as it is, and only of what it can do."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from conftest import USER_DIR, run_fairseq
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from test_search import EOS, random_sources, strong_model
from test_translation import batch

from fairseq_sru.ops.extension import COMPILED
from fairseq_sru.tasks.generation import EngineGenerator

pytestmark = pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")


def build_generator(model, beam=2, **asked):
    task = TranslationTask(TranslationConfig(), model.encoder.dictionary, model.decoder.dictionary)
    return task.build_generator([model], SimpleNamespace(beam=beam, max_len_b=8), **asked)


def sample():
    tokens = batch(random_sources(5))
    return {"net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(1).sum(1)}}


def found(generator, model):
    return [[(hypothesis["tokens"].tolist(), float(hypothesis["score"])) for hypothesis in best]
            for best in generator.generate([model], sample())]


def in_place(model, other):
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), other.parameters()):
            parameter.copy_(value)


def unseen_by_autograd(model, other):
    """As fairseq's optimizers of 16-bit training write."""
    for parameter, value in zip(model.parameters(), other.parameters()):
        parameter.data.copy_(value)


def replaced(model, other):
    for parameter, value in zip(model.parameters(), other.parameters()):
        parameter.data = value.data.clone()


def half(model, other):
    in_place(model.bfloat16(), other)


CHANGES = [in_place, unseen_by_autograd, replaced, half,
           lambda model, other: model.load_state_dict(other.state_dict())]


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_model_as_it_is_now(change, used):
    """A generator of --eval-bleu is built before the first update."""
    model = strong_model()
    generator = build_generator(model)
    assert isinstance(generator, EngineGenerator)
    before = found(generator, model) if used else None
    change(model, strong_model(seed=1))
    after = found(generator, model)
    assert after != before
    assert after == found(build_generator(model), model)


def test_bleu_of_validation_is_that_of_generate(data, trained):
    path = ["--path", trained / "checkpoint_best.pt", "--user-dir", USER_DIR, "--cpu"]
    search = '{"beam": 2, "max_len_a": 0, "max_len_b": 12}'
    validated = run_fairseq("validate", data, *path, "--task", "translation", "--max-tokens", "256",
                            "--eval-bleu", "--eval-bleu-args", search, "--valid-subset", "test")
    generated = run_fairseq("generate", data, *path, "--beam", "2", "--max-len-b", "12",
                            "--scoring", "sacrebleu")
    bleu = re.search(r"\| bleu ([\d.]+)", validated.stdout)[1]
    assert float(bleu) > 1
    assert re.search(r"beam=2: BLEU = ([\d.]+)", generated.stdout)[1] == bleu


@pytest.mark.parametrize("asked", [
    dict(extra_gen_cls_kwargs={"eos": 5}),
    dict(extra_gen_cls_kwargs={"tokens_to_suppress": ["w3"]}),
    dict(extra_gen_cls_kwargs={"symbols_to_strip_from_output": {5}}),
    dict(prefix_allowed_tokens_fn=lambda number, tokens: [4, 5, EOS]),
], ids=lambda asked: next(iter(asked.get("extra_gen_cls_kwargs", asked))))
def test_what_the_engine_cannot_do_is_fairseqs(asked):
    model = strong_model()
    generator = build_generator(model, **asked)
    assert not isinstance(generator, EngineGenerator)
    assert len(found(generator, model)) == 5


def test_constraints_without_a_search_for_them_are_refused_as_by_fairseq():
    model = strong_model()
    with pytest.raises(NotImplementedError, match="constraints"):
        build_generator(model).generate([model], sample(), constraints=torch.zeros(5, 1))
