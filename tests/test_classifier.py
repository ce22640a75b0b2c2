"""The sentence classifiers: sizes, padding, batch-mates, order, pooling, options."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary

from fairseq_sru.models.classifier import Filters, SRUClassifier, SRUppClassifier
from fairseq_sru.models.classifier_config import (
    SRU_PRESETS,
    SRUClassifierConfig,
    SRUppClassifierConfig,
)
from fairseq_sru.modules import pool

PAD = 1
HEAD = "sentence_classification_head"
SMALL = dict(embed_dim=12, hidden_size=16)


def build(preset="sru_classifier_tiny", types=40, classes=3, **options):
    """A model in float64 without dropout; of SRU++ layers if ``preset`` is "srupp"."""
    words = Dictionary()
    for i in range(types - len(words)):
        words.add_symbol(f"w{i}")
    torch.manual_seed(0)
    task = SimpleNamespace(source_dictionary=words)
    if preset == "srupp":
        model = SRUppClassifier.build_model(SRUppClassifierConfig(**{**SMALL, **options}), task)
    else:
        cfg = SRUClassifierConfig(**{**SRU_PRESETS[preset], **options})
        model = SRUClassifier.build_model(cfg, task)
    model.register_classification_head(HEAD, num_classes=classes)
    return model.double().eval()


@pytest.mark.parametrize("preset", ["srupp", *SRU_PRESETS])
def test_gates_start_open_to_the_past(preset):
    layers = build(preset).encoder.layers
    assert all(layer.recurrence.bias[0].eq(2).all() for layer in layers)


def logits(model, tokens):
    return model(tokens, features_only=True, classification_head_name=HEAD)[0]


def batch(rows, left=False, extra=0):
    length = max(map(len, rows)) + extra
    out = torch.full((len(rows), length), PAD)
    for i, row in enumerate(rows):
        start = length - len(row) if left else 0
        out[i, start : start + len(row)] = row
    return out


VARIANTS = [
    dict(layers=3),
    dict(bidirectional=True),
    dict(pooling="mean", layer_norm="pre"),
    dict(pooling="max", bidirectional=True, layer_norm="post"),
    dict(no_weight_c=True, project_input=True),
    dict(filter_width=3, pooling="max", bidirectional=True),
    dict(filter_width=4),
    dict(preset="srupp", filter_width=2, pooling="mean"),
    dict(preset="srupp", attention="all", num_heads=2),
    dict(preset="srupp", bidirectional=True, layers=3),
    dict(preset="srupp", pooling="mean"),
]


def variant_id(options):
    return "-".join(f"{k}={v}" for k, v in options.items())


@pytest.mark.parametrize("preset, thousands", [
    ("qrnn_classifier", 204), ("sru_classifier_2", 204), ("sru_classifier_4", 303),
    ("sru_classifier_8", 502)])
def test_published_sizes(preset, thousands):
    """SRU paper, table 1, which does not count the fixed word vectors."""
    model = build(preset, classes=2, freeze_embed=True)
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert round(size / 1000) == thousands


@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
def test_predictions_depend_on_the_sentence_alone(options):
    """Not on batch-mates, their order, padding side or padding amount."""
    model = build(**options)
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(4, 40, (n,), generator=generator) for n in (1, 7, 3, 12, 2)]
    alone = torch.cat([logits(model, row[None]) for row in rows])
    for left in (False, True):
        for extra in (0, 3):
            order = torch.randperm(len(rows), generator=generator)
            found = logits(model, batch([rows[i] for i in order], left, extra))
            torch.testing.assert_close(found, alone[order], rtol=0, atol=1e-10)
    assert alone.std(0).min() > 1e-3  # and on the sentence they do depend


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_pooling_equals_a_loop_over_sentences(pooling, bidirectional):
    h = torch.randn(6, 4, 8, dtype=torch.float64)
    spans = [(0, 6), (2, 3), (1, 6), (0, 4)]
    pad = torch.ones(6, 4, dtype=torch.bool)
    for i, (start, end) in enumerate(spans):
        pad[start:end, i] = False
    found = pool(h, pad, pooling, bidirectional)
    for i, (start, end) in enumerate(spans):
        real = h[start:end, i]
        expected = {
            "last": torch.cat([real[-1, :4], real[0, 4:]]) if bidirectional else real[-1],
            "mean": real.mean(0),
            "max": real.max(0).values,
        }[pooling]
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
def test_the_whole_sentence_is_read(options):
    """The gradient of a prediction reaches every real token, and no padding."""
    model = build(**options)
    tokens = batch([torch.arange(5, 12), torch.arange(20, 23)])
    logits(model, tokens).square().sum().backward()
    reached = model.embed_tokens.weight.grad.abs().sum(-1)
    assert reached.nonzero().flatten().tolist() == [*range(5, 12), *range(20, 23)]


def test_dropout_reaches_every_place():
    for option in ("dropout", "embedding_dropout", "output_dropout"):
        off = dict(dropout=0.0, embedding_dropout=0.0, output_dropout=0.0)
        tokens = torch.arange(5, 15)[None]
        assert torch.equal(logits(build(**off).train(), tokens), logits(build(**off), tokens))
        model = build(**{**off, option: 0.5}).train()
        assert not torch.equal(logits(model, tokens), logits(model, tokens))


def test_dropouts_default_to_dropout():
    model = build(dropout=0.3)
    assert (model.embedding_dropout.p, model.output_dropout.p) == (0.3, 0.3)
    model = build(dropout=0.3, embedding_dropout=0.0, output_dropout=0.1)
    assert (model.embedding_dropout.p, model.output_dropout.p) == (0.0, 0.1)


@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_filters_equal_a_loop_over_words(width):
    filters = Filters(6, 8, width).double()
    x = torch.randn(7, 2, 6, dtype=torch.float64)
    found = filters(x)
    assert found.shape == (7, 2, 8)
    for i in range(7):
        expected = filters.conv.bias.expand(2, 8)
        for j in range(width):
            word = i + j - width // 2
            if 0 <= word < 7:
                expected = expected + x[word] @ filters.conv.weight[..., j].t()
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-12)


def test_filters_read_no_padding():
    x = torch.randn(5, 1, 6)
    x[3:] = math.nan
    filters = Filters(6, 8, 3)
    pad = torch.tensor([[False]] * 3 + [[True]] * 2)
    torch.testing.assert_close(filters(x, pad)[:3], filters(x[:3]))


def test_without_a_head_the_features_are_returned():
    assert build(bidirectional=True)(torch.tensor([[5, 6, 7]]), features_only=True)[0].size(1) == 32


def test_heads_are_independent():
    model = build().float()
    model.register_classification_head("other", num_classes=5)
    found, _ = model(torch.tensor([[5, 6]]), classification_head_name="other")
    assert found.shape == (1, 5)


@pytest.mark.parametrize("head, classes", [("other", 3), (HEAD, 5)])
def test_a_checkpoint_of_other_classes_starts_a_head_anew(caplog, head, classes):
    """Fine-tuning for them, as fairseq's RoBERTa does it."""
    saved, model = build().state_dict(), build(classes=5)
    if head != HEAD:
        saved = {name.replace(HEAD, head): value for name, value in saved.items()}
    start = model.classification_heads[HEAD].weight.clone()
    with torch.no_grad():
        model.embed_tokens.weight.add_(1)
    model.load_state_dict(saved)
    assert torch.equal(model.classification_heads[HEAD].weight, start)
    assert torch.equal(model.embed_tokens.weight, saved["embed_tokens.weight"])
    assert f"classification_heads.{head}.weight is left out" in caplog.text


def test_the_qrnn_preset_reads_no_cell():
    layers = build("qrnn_classifier").encoder.layers
    assert [layer.recurrence.weight_c for layer in layers] == [None, None]


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="layers must be a whole number, at least 1"):
        build(layers=0)
    with pytest.raises(ValueError, match="filter-width must be a whole number, at least 1"):
        build(filter_width=0)
    with pytest.raises(ValueError, match="pooling must be"):
        logits(build(pooling="first"), torch.tensor([[5]]))


@pytest.mark.parametrize("model, config", [
    (SRUClassifier, SRUClassifierConfig), (SRUppClassifier, SRUppClassifierConfig)])
def test_previous_outputs_are_refused(model, config):
    task = SimpleNamespace(source_dictionary=Dictionary(),
                           cfg=SimpleNamespace(add_prev_output_tokens=True))
    with pytest.raises(ValueError, match="--add-prev-output-tokens is for models with a decoder"):
        model.build_model(config(), task)
