"""The SRU language model: sizes, start values, ablations, streams, decoding, fairseq's commands,
the reference's state dicts."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, USER_DIR, run_fairseq, run_python
from fairseq.data import Dictionary
from test_language_model import close, log_probs, variant_id
from test_stream_task import assert_same_model, evaluate, train

from fairseq_sru.convert import ConversionError
from fairseq_sru.convert.language_model import (
    Vocabulary,
    from_reference,
    load,
    sru_from_reference,
    to_reference,
)
from fairseq_sru.models.language_model import SRULanguageModel
from fairseq_sru.models.lm_config import SRU_PRESETS as PRESETS
from fairseq_sru.models.lm_config import SRULMConfig
from fairseq_sru.modules import SRU
from fairseq_sru.state import StreamMemory

PAD, EOS, VOCABULARY = 1, 2, 40
PUBLISHED = {  # millions of parameters, layers, projection
    "sru_lm_enwik8_6": (37, 6, None),
    "sru_lm_enwik8_10": (37, 10, None),
    "sru_lm_enwik8_6_proj": (37, 6, 512),
    "sru_lm_enwik8_8_proj": (47, 8, 512),
    "sru_lm_enwik8_12_proj": (49, 12, 512),
}
VARIANTS = [
    dict(),
    dict(proj_size=8, layers=3),
    dict(proj_size=24, layer_norm="post"),
    dict(proj_size=8, project_input=True, layer_norm="pre"),
    dict(embed_dim=None, share_decoder_input_output_embed=True),
    dict(share_decoder_input_output_embed=True),
    dict(adaptive_cutoff="10,20", tie_adaptive_proj=True),
    dict(no_weight_c=True),
    dict(no_rescale=True, embed_dim=None),
    dict(no_highway=True),
    dict(no_weight_c=True, no_rescale=True, no_highway=True, proj_size=8),
]


def make_model(cfg, types):
    words = Dictionary()
    for i in range(types - len(words)):
        words.add_symbol(f"w{i}")
    return SRULanguageModel.build_model(cfg, SimpleNamespace(target_dictionary=words))


def build(preset="sru_lm_tiny", **options):
    """A model in float64, for evaluation."""
    torch.manual_seed(0)
    return make_model(SRULMConfig(**{**PRESETS[preset], **options}), VOCABULARY).double().eval()


variants = pytest.mark.parametrize("options", VARIANTS, ids=variant_id)


def tokens(rows, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, VOCABULARY, (rows, length), generator=generator)


def score(model, text, **kwargs):
    return log_probs(model, model(text, **kwargs))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    """SRU paper, table 4, to its rounding, with the 205 types of enwik8."""
    millions, layers, projection = PUBLISHED[name]
    cfg = SRULMConfig(**PRESETS[name])
    with torch.device("meta"):
        model = make_model(cfg, 205)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions
    stack = model.decoder.stack
    assert len(stack.layers) == layers
    assert {layer.recurrence.highway_bias for layer in stack.layers} == {-3.0}
    # the first layer's input is narrower than the projection
    assert stack.layers[0].in_proj is None
    for layer in stack.layers[1:]:
        assert (layer.in_proj and layer.in_proj.out_features) == projection
        assert layer.recurrence.scale == math.sqrt(1 + 2 * math.exp(-3))
    dropouts = [layer.recurrence.dropout for layer in stack.layers]
    expected = 0.3 if projection else 0.2
    assert dropouts == [expected] * (layers - 1) + [0.0]
    assert model.decoder.embedding_dropout == model.decoder.output_dropout == expected


def test_every_published_preset_is_there():
    assert PUBLISHED.keys() | {"sru_lm_tiny"} == PRESETS.keys()


def test_start_values():
    """SRU paper section 3.2: variance 1 / fan-in, also of both matrices of a projection."""
    decoder = build(embed_dim=48, hidden_size=96, proj_size=32, highway_bias=-3.0).decoder
    first, second = decoder.stack.layers
    matrices = [first.in_proj, first.out_proj, second.in_proj, second.out_proj]
    for fan_in, linear in zip((48, 32, 96, 32), matrices):
        assert linear.in_features == fan_in
        assert abs(linear.weight.var() * fan_in - 1) < 0.1
        assert linear.weight.abs().max() <= math.sqrt(3 / fan_in)
    for layer in decoder.stack.layers:
        assert not layer.recurrence.bias[0].any() and layer.recurrence.bias[1].eq(-3).all()
        assert 0.9 < layer.recurrence.weight_c.abs().max() <= 1
    for weight in (decoder.embed_tokens.weight, decoder.output_projection.weight):
        assert abs(weight.std() * 48**0.5 - 1) < 0.1
    assert not decoder.output_projection.bias.any()


def test_the_output_reads_the_layers_unless_it_is_tied():
    decoder = build(embed_dim=16).decoder
    assert decoder.feature_proj is None and decoder.output_projection.in_features == 32
    tied = build(embed_dim=16, share_decoder_input_output_embed=True).decoder
    assert tied.feature_proj.weight.shape == (16, 32)
    assert tied.output_projection.weight is tied.embed_tokens.weight


@variants
@pytest.mark.parametrize("lengths", [23, 1, 4, [2, 9, 1, 11]], ids=str)
def test_segments_with_memory_equal_one_long_forward(options, lengths):
    """Whatever their lengths, and whatever the context: the memory holds cells alone."""
    model, text = build(**options), tokens(3, 23)
    memory, scores = StreamMemory(4, 2), []
    for segment in text.split(lengths, 1):
        memory = memory.next()
        scores.append(score(model, segment, memory=memory))
        assert memory.after.inputs == [None] * len(model.decoder.stack.layers)
    close(torch.cat(scores, 1), score(model, text))


def test_what_is_forgotten_is_missed():
    """The test above can fail."""
    model, text = build(), tokens(2, 12)
    apart = torch.cat([score(model, segment) for segment in text.split(6, 1)], 1)
    assert (apart - score(model, text))[:, 6:].abs().max() > 1e-3


def test_memory_has_no_gradient():
    model, text = build(dropout=0.0).train(), tokens(2, 12)
    memory, losses = StreamMemory(4, 4), []
    for segment in text.split(4, 1):
        memory = memory.next()
        assert memory.before is None or not memory.before.cells.requires_grad
        losses.append(score(model, segment, memory=memory).sum())
    losses[1].backward()  # would fail here or below if it led into the first segment
    losses[0].backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@variants
def test_sentences_depend_on_themselves_alone(options):
    """Padding in a segment leaves the cells that the next one starts from, too."""
    model = build(**options)
    rows = [tokens(1, n, seed=n) for n in (7, 1, 4)]
    batch = torch.full((3, 9), PAD)
    for i, row in enumerate(rows):
        batch[i, : row.size(1)] = row
    more, memory = tokens(3, 3, seed=9), StreamMemory(9, 9)
    scores = score(model, batch, memory=memory)
    then = score(model, more, memory=memory.next())
    for i, row in enumerate(rows):
        alone = score(model, torch.cat([row, more[i : i + 1]], 1))[0]
        close(torch.cat([scores[i, : row.size(1)], then[i]]), alone)


@variants
def test_incremental_decoding_equals_the_full_forward(options):
    """Hypotheses are reordered, repeated and dropped at random."""
    model = build(**options)
    generator = torch.Generator().manual_seed(0)
    prefix, state = torch.full((6, 1), EOS), {}
    for step in range(14):
        scores = log_probs(model, model.decoder(prefix, incremental_state=state))
        close(scores, score(model, prefix)[:, -1:])
        rows = 4 if step == 9 else len(prefix)
        order = torch.randint(0, len(prefix), (rows,), generator=generator)
        model.decoder.reorder_incremental_state_scripting(state, order)
        new = torch.randint(4, VOCABULARY, (rows, 1), generator=generator)
        prefix = torch.cat([prefix[order], new], 1)


@variants
def test_a_prompt_may_be_read_at_once(options):
    model, text, state = build(**options), tokens(2, 9), {}
    parts = [model.decoder(text[:, :end], incremental_state=state) for end in (6, 7, 9)]
    close(torch.cat([log_probs(model, part) for part in parts], 1), score(model, text))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoding_keeps_cells_in_float32(dtype):
    stack = SRU(6, 8, 2).to(dtype).eval()
    x = torch.randn(5, 3, 6, dtype=dtype)
    state = stack.start(3)
    h = torch.cat([stack.step(x[:1], state)[0], stack.step(x[1:], state)[0]])
    assert state.length == 5 and [c.shape for c in state.cells] == [(3, 8)] * 2
    assert all(c.dtype == torch.float32 for c in state.cells)
    torch.testing.assert_close(h, stack(x)[0])


def names(**options):
    return {name for name, _ in build(**options).named_parameters()}


def test_ablations_remove_what_they_should():
    """SRU paper section 4.5: v * c, the scaling, the highway, one after the other."""
    v = {f"decoder.stack.layers.{i}.recurrence.weight_c" for i in range(2)}
    assert names() - names(no_weight_c=True) == v
    assert names(no_rescale=True) == names(no_highway=True) == names()
    first = "decoder.stack.layers.0.out_proj.weight"
    shapes = [build(**options).state_dict()[first].shape
              for options in (dict(), dict(no_highway=True), dict(embed_dim=None))]
    assert shapes == [(4 * 32, 16), (3 * 32, 16), (3 * 32, 32)]
    for options in dict(no_rescale=True), dict(no_highway=True):
        assert {m.recurrence.scale for m in build(**options).decoder.stack.layers} == {1.0}
    scaled = build().decoder.stack.layers[1].recurrence.scale
    assert scaled == math.sqrt(1 + 2 * math.exp(-1))


def test_ablations_change_the_scores():
    text = tokens(2, 9)
    options = [dict(), *({name: True} for name in ("no_weight_c", "no_rescale", "no_highway"))]
    model = build(embed_dim=None)
    scores = []
    for option in options:
        other = build(embed_dim=None, **option)
        other.load_state_dict(model.state_dict(), strict=not option.get("no_weight_c"))
        scores.append(score(other, text))
    for i, one in enumerate(scores):
        for two in scores[:i]:
            assert (one - two).abs().max() > 1e-3


def test_without_v_and_with_highway_it_is_qrnn_of_width_one():
    """Gates of the input alone, cell by cell, in plain PyTorch."""
    layer = build(embed_dim=None, no_weight_c=True, no_rescale=True, layers=1).decoder.stack
    x = torch.randn(6, 2, 32, dtype=torch.float64)
    (w,), bias = layer.layers[0].out_proj.parameters(), layer.layers[0].recurrence.bias
    c, expected = torch.zeros(2, 32, dtype=torch.float64), []
    for token in x:
        f, r, z = (token @ w.t()).chunk(3, -1)
        f, r = (f + bias[0]).sigmoid(), (r + bias[1]).sigmoid()
        c = f * c + (1 - f) * z
        expected.append(r * c + (1 - r) * token)
    close(layer(x)[0], torch.stack(expected))


@pytest.mark.parametrize("options, message", [
    (dict(proj_size=32), "between 0 and --hidden-size"),
    (dict(proj_size=0), "--proj-size must be a whole number, at least 1"),
    (dict(layers=0), "layers must be a whole number, at least 1"),
    (dict(adaptive_cutoff="10", share_decoder_input_output_embed=True), "leave out"),
    (dict(tie_adaptive_proj=True), "needs --adaptive-cutoff"),
])
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


RECIPE = ["--optimizer", "adam", "--adam-betas", "(0.9, 0.999)", "--weight-decay", "1e-7",
          "--clip-norm", "0.3", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "5",
          "--lr", "0.02", "--disable-validation"]
NARROW = ["--hidden-size", "32", "--embed-dim", "12", "--layers", "3"]


@pytest.mark.parametrize("name", ["sru_lm_enwik8_10", "sru_lm_enwik8_8_proj"])
def test_presets_train_and_are_scored(lm_data, tmp_path, name):
    """20 updates with narrow layers, as on enwik8."""
    options = ["--arch", name, *NARROW, *(["--proj-size", "16"] if "proj" in name else []), *RECIPE]
    path = train(lm_data, tmp_path, *options, "--max-update", "4")
    first = evaluate(lm_data, path)
    path = train(lm_data, tmp_path, *options, "--max-update", "20")
    state = torch.load(path, weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 20
    assert any("in_proj" in name for name in state["model"]) == ("proj" in name)
    assert evaluate(lm_data, path) < first


def test_a_resumed_run_continues_exactly(lm_data, tmp_path):
    """Updates 7 to 20 after a stop in the middle of the first epoch, cells included."""
    options = ["--arch", "sru_lm_tiny", "--dropout", "0", *RECIPE]
    straight = train(lm_data, tmp_path / "straight", *options, "--max-update", "20")
    path = train(lm_data, tmp_path / "resumed", *options, "--max-update", "7")
    (streams,) = torch.load(path, weights_only=True)["extra_state"]["train_iterator"]["streams"]
    assert streams["cells"].shape == (2, 4, 32) and streams["inputs"] == [None, None]
    resumed = train(lm_data, tmp_path / "resumed", *options, "--max-update", "20")
    assert_same_model(straight, resumed)


@pytest.fixture(scope="module")
def trained(lm_data, tmp_path_factory):
    return train(lm_data, tmp_path_factory.mktemp("trained"), "--arch", "sru_lm_tiny", *RECIPE,
                 "--max-update", "20")


def test_segments_and_context_change_no_score(lm_data, trained):
    scores = [evaluate(lm_data, trained, "--eval-segment", segment, "--eval-context", context)
              for segment, context in (("1", "0"), ("7", "3"), ("50", "99"))]
    assert max(scores) - min(scores) < 1e-5


@pytest.mark.parametrize("mode", ["none", "eos"])
def test_the_stateless_task_scores_the_model_too(lm_data, trained, mode):
    loss = evaluate(lm_data, trained, "--sample-break-mode", mode, "--tokens-per-sample", "30",
                    task="language_modeling")
    assert 2.0 < loss < 6.0


@pytest.mark.parametrize("task", ["srupp_language_modeling", "language_modeling"])
def test_texts_are_continued_from_a_prompt(lm_data, trained, task):
    output = run_fairseq(
        "interactive", lm_data, "--user-dir", USER_DIR, "--task", task, "--path", trained, "--cpu",
        "--max-len-b", "12", "--batch-size", "3", "--buffer-size", "3", "--beam", "3",
        stdin="w1 w4 w7\nw3\n\n").stdout
    texts = dict(re.findall(r"^D-(\d)\t\S+\t(.*)$", output, re.MULTILINE))
    assert texts.keys() == {"0", "1", "2"}
    assert texts["0"].startswith("w1 w4 w7") and texts["1"].startswith("w3")


@pytest.mark.command
def test_the_recipe_trains_and_evaluates(tmp_path):
    """examples/enwik8 on a small stand-in for enwik8."""
    for split in ("train", "valid", "test"):
        (tmp_path / split).write_bytes(b"def f(x):\n    return x\n" * 80)
    files = [x for split in ("train", "valid", "test") for x in (f"--{split}", tmp_path / split)]
    result = run_python(
        ROOT / "examples" / "byte_text.py", tmp_path / "binary", *files, PYTHONPATH=str(ROOT))
    assert result.returncode == 0, result.stderr

    def recipe(script, *args):
        environment = {**os.environ, "OUT": str(tmp_path), "MODEL": "sru_12_proj", "GPUS": "1",
                       "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        command = ["bash", str(ROOT / "examples" / "enwik8" / script), *args]
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    recipe("train.sh", "--cpu", "--hidden-size", "32", "--proj-size", "16", "--max-update", "3",
           "--warmup-updates", "1")
    cfg = torch.load(tmp_path / "sru_12_proj" / "checkpoint_best.pt", weights_only=True)["cfg"]
    assert (cfg["model"]["layers"], cfg["model"]["highway_bias"]) == (12, -3.0)
    assert (cfg["dataset"]["batch_size"], cfg["task"]["tokens_per_sample"]) == (64, 256)
    assert cfg["optimization"]["lr"] == [pytest.approx(3 / math.sqrt(2048 * 32000), rel=0.002)]
    assert "Evaluated 1,840 tokens" in recipe("evaluate.sh")


CONVERTED = [
    dict(highway_bias=-3.0),
    dict(embed_dim=None, proj_size=8, layers=3),
    dict(proj_size=20, layer_norm="pre"),
    dict(project_input=True, proj_size=8, highway_bias=-1.23456789),
    dict(no_rescale=True),
    dict(no_weight_c=True),
    dict(embed_dim=16, adaptive_cutoff="14,24", adaptive_factor=2.0, tie_adaptive_proj=True),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", CONVERTED, ids=variant_id)
def test_to_the_reference_and_back_keeps_every_bit(options, dtype):
    model = build(**options).to(dtype)
    own = model.decoder.dictionary
    state = to_reference(model, Vocabulary.whole(own))
    again, cfg = sru_from_reference(state, Vocabulary.read(own.symbols))
    assert same(again.state_dict(), model.state_dict())
    assert same(to_reference(again, Vocabulary.whole(own)), state)
    expected = SRULMConfig(**{**PRESETS["sru_lm_tiny"], **options})
    for name in ("hidden_size", "proj_size", "layers", "project_input", "no_weight_c", "no_rescale",
                 "layer_norm", "adaptive_cutoff"):
        assert str(getattr(cfg, name)) == str(getattr(expected, name)), name
    if not cfg.no_rescale:
        assert cfg.highway_bias == pytest.approx(expected.highway_bias, abs=1e-5)
    if expected.highway_bias == round(expected.highway_bias, 4):
        text = tokens(2, 7)
        assert torch.equal(score(again.eval(), text), score(model, text))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_reference_numbers_the_same_equations():
    """Its state dict alone, its layout of blocks written out, gives our scores."""
    model = build()
    state = to_reference(model, Vocabulary.whole(model.decoder.dictionary))
    text = tokens(2, 6)
    x = state["embedding_layer.weight"][text.t()]
    for i in range(2):
        prefix = f"rnn.rnn_lst.{i}."
        u = (x @ state[f"{prefix}transform_module.weight"].t()).unflatten(-1, (32, -1)).unbind(-1)
        v_f, v_r = state[f"{prefix}weight_c"].chunk(2)
        b_f, b_r = state[f"{prefix}bias"].chunk(2)
        highway = u[3] if len(u) == 4 else x * state[f"{prefix}scale_x"]
        c, h = torch.zeros(2, 32, dtype=torch.float64), []
        for t in range(6):
            f, r = (u[1][t] + v_f * c + b_f).sigmoid(), (u[2][t] + v_r * c + b_r).sigmoid()
            c = f * c + (1 - f) * u[0][t]
            h.append(r * c + (1 - r) * highway[t])
        x = torch.stack(h)
    scores = x @ state["output_layer.weight"].t() + state["output_layer.bias"]
    close(scores.transpose(0, 1), model(text)[0])


@pytest.mark.parametrize("change, message", [
    (lambda s: s["rnn.rnn_lst.1.scale_x"].fill_(1.5), "rnn_lst.1.scale_x is 1.5.*all layers alike"),
    (lambda s: s["rnn.rnn_lst.0.scale_x"].fill_(0.5), "is 0.5, which no highway bias gives"),
    (lambda s: s.pop("rnn.rnn_lst.0.scale_x"), "no SRU language model.*rnn_lst.0.scale_x"),
    (lambda s: s.pop("rnn.rnn_lst.1.weight_c"), "rnn_lst.1.weight_c is missing"),
    (lambda s: s.update({"rnn.rnn_lst.0.transform_module.0.weight": torch.zeros(8, 16)}),
     "transform_module.0.weight is unknown"),
])
def test_other_state_dicts_are_refused(change, message):
    model = build()
    state = to_reference(model, Vocabulary.whole(model.decoder.dictionary))
    change(state)
    with pytest.raises(ConversionError, match=message):
        sru_from_reference(state, Vocabulary.read(model.decoder.dictionary.symbols))


def test_what_a_state_dict_cannot_say_is_refused():
    model = build(no_weight_c=True)
    vocabulary = Vocabulary.whole(model.decoder.dictionary)
    with pytest.raises(ConversionError, match="does not say that there is no highway"):
        to_reference(build(no_highway=True), vocabulary)
    with pytest.raises(ConversionError, match="has no decoder.stack.*weight_c, but"):
        load(model, to_reference(build(), vocabulary), vocabulary)
    with pytest.raises(ConversionError, match="no counterpart of decoder.feature_proj.weight"):
        to_reference(build(share_decoder_input_output_embed=True), vocabulary)
    with pytest.raises(ConversionError, match="no SRU.. language model"):
        from_reference(to_reference(build(), vocabulary), vocabulary)
