"""Attention to the source is where fairseq's Transformer has it: hub, engine, loss."""

from types import SimpleNamespace

import pytest
import torch
from conftest import USER_DIR
from fairseq import hub_utils, options, tasks
from fairseq.data import LanguagePairDataset
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from test_search import random_sources, strong_model
from test_translation import batch, build

import fairseq_sru
from fairseq_sru.models.config import PRESETS, SRUppConfig
from fairseq_sru.models.translation import SRUppModel
from fairseq_sru.ops.extension import COMPILED

fairseq_sru.register()


@pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")
def test_the_engine_returns_the_attention_that_fairseqs_search_does():
    model = strong_model(3)
    sources = random_sources(5)
    sample = {"net_input": {"src_tokens": batch(sources, left=True),
                            "src_lengths": torch.tensor([len(s) for s in sources])}}
    task = TranslationTask(TranslationConfig(), model.encoder.dictionary, model.decoder.dictionary)
    ours = task.build_generator(
        [model], SimpleNamespace(beam=3, max_len_b=20)).generate([model], sample)
    theirs = SequenceGenerator(
        [model], model.decoder.dictionary, beam_size=3, max_len_b=20).generate([model], sample)
    for mine, other in zip(ours, theirs):
        for hypothesis, expected in zip(mine, other):
            assert torch.equal(hypothesis["tokens"], expected["tokens"])
            torch.testing.assert_close(
                hypothesis["attention"], expected["attention"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", ["hard", "soft"])
def test_the_hub_prints_alignments(data, trained, how):
    hub = hub_from(data, trained)
    (best, *_) = hub.generate(hub.encode("wort1 wort2 wort3"), print_alignment=how)
    assert len(best["alignment"]) >= len(best["tokens"]) - 1
    assert best["attention"].shape == (4, len(best["tokens"]))


def test_the_hub_returns_attention_without_being_asked(data, trained):
    hub = hub_from(data, trained)
    (best, *_) = hub.generate(hub.encode("wort1 wort2 wort3"))
    attention = best["attention"]
    assert attention.shape == (4, len(best["tokens"]))
    assert (attention.sum(0) > 0).all()


def hub_from(data, trained):
    found = hub_utils.from_pretrained(
        str(trained), "checkpoint_best.pt", str(data), archive_map={}, user_dir=str(USER_DIR))
    return hub_utils.GeneratorHubInterface(found["args"], found["task"], found["models"])


def test_alignments_are_learnt(data):
    """--criterion label_smoothed_cross_entropy_with_alignment on tokens that are each other's."""
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(parser, [
        str(data), "--task", "translation", "--arch", "srupp_tiny", "--dropout", "0",
        "--criterion", "label_smoothed_cross_entropy_with_alignment"])
    cfg = convert_namespace_to_omegaconf(args)
    task = tasks.setup_task(cfg.task)
    torch.manual_seed(0)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    sentence = torch.tensor([5, 6, 7, 8, 2])
    pairs = LanguagePairDataset(
        [sentence] * 2, [5, 5], task.source_dictionary, [sentence] * 2, [5, 5],
        task.target_dictionary, align_dataset=[torch.tensor([3, 0, 2, 1, 1, 2, 0, 3])] * 2)
    sample = pairs.collater([pairs[0], pairs[1]])
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(20):
        loss, _, logged = criterion(model, sample)
        losses.append(logged["alignment_loss"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    best = model(**sample["net_input"])[1]["attn"][0][0].argmax(-1).tolist()
    assert best[:4] == [3, 2, 1, 0]


def test_alignments_need_attention():
    dictionary = build().decoder.dictionary
    task = SimpleNamespace(cfg=SimpleNamespace(load_alignments=True),
                           source_dictionary=dictionary, target_dictionary=dictionary)
    config = SRUppConfig(**{**PRESETS["srupp_tiny"], "decoder_attention": "none"})
    with pytest.raises(ValueError, match="--load-alignments needs a decoder that attends"):
        SRUppModel.build_model(config, task)
