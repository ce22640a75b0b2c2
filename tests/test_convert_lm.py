"""Language models of the reference in and out: names, words, bits, scores, fairseq-eval-lm."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import eval_lm as fairseq_eval_lm
from fairseq_cli import preprocess as fairseq_preprocess
from fairseq_cli import train as fairseq_train

import fairseq_sru
from fairseq_sru.convert import ConversionError
from fairseq_sru.convert import __main__ as command_line
from fairseq_sru.convert.language_model import Vocabulary, from_reference, to_reference
from fairseq_sru.models.language_model import SRUppLanguageModel
from fairseq_sru.models.lm_config import SRUppLMConfig

fairseq_sru.register()

SIZES = dict(hidden_size=12, proj_size=6, layers=3, dropout=0.0)
ADAPTIVE = dict(embed_dim=8, adaptive_cutoff="14,24", adaptive_factor=2.0)
VARIANTS = [
    dict(),
    dict(attention="2", layer_norm="pre", num_heads=2),
    dict(attention="none", no_attention_norm=True, embed_dim=10),
    ADAPTIVE,
    dict(ADAPTIVE, tie_adaptive_proj=True),
]
WORDS = ["a", "b", "<eos>", "c", "<unk>", *(f"w{i}" for i in range(35))]


def build(words=WORDS, **options):
    """A model of ours with random numbers, and its vocabulary."""
    vocabulary = Vocabulary.read(words)
    torch.manual_seed(0)
    model = SRUppLanguageModel.build_model(
        SRUppLMConfig(**{**SIZES, **options}),
        SimpleNamespace(target_dictionary=vocabulary.dictionary))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return model.double().eval(), vocabulary


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def log_probs(model, tokens):
    features, _ = model(tokens)
    if model.decoder.adaptive_softmax is not None:
        return model.decoder.adaptive_softmax.get_log_prob(features, None)
    return features.log_softmax(-1)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_out_and_in_keeps_every_bit(options):
    """All entries of the dictionary, then: the same model and the same scores."""
    if options.get("embed_dim") == 10:
        with pytest.raises(ConversionError, match="no counterpart of decoder.feature_proj.weight"):
            to_reference(*build(**options))
        return
    model, _ = build(**options)
    own = model.decoder.dictionary
    state = to_reference(model, Vocabulary.whole(own))
    again, cfg = from_reference(state, Vocabulary.read(own.symbols), cfg_heads(options))
    assert same(again.state_dict(), model.state_dict())
    expected = SRUppLMConfig(**{**SIZES, **options})
    for name in ("hidden_size", "proj_size", "layers", "attention", "num_heads", "layer_norm",
                 "adaptive_cutoff", "tie_adaptive_proj", "no_attention_norm"):
        assert str(getattr(cfg, name)) == str(getattr(expected, name)), name
    tokens = torch.randint(4, 42, (2, 7))
    assert torch.equal(log_probs(again.eval(), tokens), log_probs(model, tokens))


def cfg_heads(options):
    return options.get("num_heads", 1)


@pytest.mark.parametrize("options", [VARIANTS[0], VARIANTS[3], VARIANTS[4]], ids=str)
def test_their_words_keep_their_numbers_and_scores(options):
    """Against the reference's softmax, written in its own numbering."""
    _, vocabulary = build(**options)
    state = to_reference(*build(**options))
    model, _ = from_reference(state, vocabulary)
    assert same(to_reference(model, vocabulary), state)
    ids = torch.randint(0, len(WORDS), (2, 7))
    scores = log_probs(model.eval(), vocabulary.rows[ids])
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(2, 7, dtype=torch.float64))
    new = torch.ones(len(vocabulary.dictionary), dtype=torch.bool)
    new[vocabulary.rows] = False
    assert scores[..., new].exp().max() == 0
    x = embed_theirs(state, ids)
    h = model.decoder.stack(x.transpose(0, 1), causal=True).h.transpose(0, 1)
    torch.testing.assert_close(
        scores[..., vocabulary.rows], score_theirs(state, h), rtol=0, atol=1e-10)


def embed_theirs(state, ids):
    if "embedding_layer.weight" in state:
        return state["embedding_layer.weight"][ids]
    first = state["output_layer.out_layers.0.weight"][:-2]
    rest = [state[f"output_layer.out_layers.{i}.weight"] for i in (1, 2)]
    return torch.cat([
        weight @ state[f"embedding_layer.emb_projs.{i}"].t()
        for i, weight in enumerate([first, *rest])])[ids]


def score_theirs(state, h):
    """Log-probability of every word; of the scores of the bands the last is the first band's."""
    if "output_layer.weight" in state:
        return F.linear(h, state["output_layer.weight"], state["output_layer.bias"]).log_softmax(-1)
    bands = [
        F.linear(h @ state[f"output_layer.out_projs.{i}"],
                 state[f"output_layer.out_layers.{i}.weight"],
                 state[f"output_layer.out_layers.{i}.bias"]).log_softmax(-1)
        for i in range(3)]
    return torch.cat([bands[0][..., :-2], bands[0][..., -1:] + bands[1],
                      bands[0][..., -2:-1] + bands[2]], -1)


def test_all_that_does_not_fit_is_listed():
    state = to_reference(*build())
    state["output_layer.bais"] = state.pop("output_layer.bias")
    state["rnn.rnn_lst.1.bias"] = torch.zeros(5)
    with pytest.raises(ConversionError) as error:
        from_reference(state, Vocabulary.read(WORDS))
    for part in ("output_layer.bias is missing", "output_layer.bais is unknown",
                 "rnn.rnn_lst.1.bias is (5,), not (24,)"):
        assert part in str(error.value)


@pytest.mark.parametrize("change, message", [
    (lambda s: s.update({"rnn.rnn_lst.0.scale_x": torch.tensor([1.5])}), "do not rescale"),
    (lambda s: s.pop("rnn.rnn_lst.0.bias"), "no SRU.. language model.*rnn_lst.0.bias"),
])
def test_other_state_dicts_are_refused(change, message):
    state = to_reference(*build())
    change(state)
    with pytest.raises(ConversionError, match=message):
        from_reference(state, Vocabulary.read(WORDS))


@pytest.mark.parametrize("words, message", [
    (WORDS[:-1], "39 words, the model 40"), ([*WORDS[:-1], "a"], "'a'"),
    ([*WORDS[:-1], "a b"], "'a b'"), ([*WORDS[:-1], "</s>"], "'</s>'"),
])
def test_other_vocabularies_are_refused(words, message):
    with pytest.raises(ConversionError, match=message):
        from_reference(to_reference(*build()), Vocabulary.read(words))


def test_special_words_must_be_frequent():
    with pytest.raises(ConversionError, match="<unk> must be among the 12 most frequent"):
        to_reference(*build([*WORDS[:4], *WORDS[5:], "<unk>"], **ADAPTIVE))


def run_command(parser, main, *args):
    """A fairseq command in this process."""
    parsed = options.parse_args_and_arch(parser(), [str(arg) for arg in args])
    return main(convert_namespace_to_omegaconf(parsed))


def convert(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["convert", *map(str, args)])
    return command_line.main()


@pytest.fixture(scope="module")
def text(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    parser = options.get_preprocessing_parser()
    fairseq_preprocess.main(parser.parse_args([
        "--only-source", "--trainpref", f"{corpus}/train.de", "--testpref", f"{corpus}/test.de",
        "--destdir", str(folder)]))
    return folder


def evaluate(text, checkpoint):
    return run_command(
        options.get_eval_lm_parser, fairseq_eval_lm.main, text, "--path", checkpoint, "--cpu",
        "--task", "srupp_language_modeling", "--tokens-per-sample", "16", "--batch-size", "2")


def assert_there_and_back(text, folder, monkeypatch):
    """The model trained in ``folder``, to the reference and back: the same bits and loss."""
    last, again = folder / "checkpoint_last.pt", folder / "again" / "checkpoint.pt"
    first, second = folder / "reference.pt", folder / "reference2.pt"
    convert(monkeypatch, last, first, "--to-reference", "--dict", text / "dict.txt")
    convert(monkeypatch, first, again.parent, "--vocabulary", f"{first}.words")
    convert(monkeypatch, again, second, "--to-reference")
    assert same(*(torch.load(path, weights_only=True) for path in (first, second)))
    assert same(*(torch.load(path, weights_only=True)["model"] for path in (last, again)))
    before, after = evaluate(text, last), evaluate(text, again)
    assert before == after
    assert 0 < before["loss"] < 10


@pytest.mark.slow
@pytest.mark.parametrize("choice", [
    ["--criterion", "cross_entropy"],
    ["--criterion", "adaptive_loss", "--adaptive-cutoff", "8,16", "--embed-dim", "16",
     "--ddp-backend", "legacy_ddp"],
], ids=["plain", "adaptive"])
def test_a_trained_model_exported_and_imported_has_the_same_loss(
    text, tmp_path, monkeypatch, choice
):
    run_command(
        options.get_training_parser, fairseq_train.main, text, "--task", "srupp_language_modeling",
        "--arch", "srupp_lm_tiny", "--num-heads", "1", "--embed-dim", "32", "--optimizer", "radam",
        "--lr", "0.01", "--tokens-per-sample", "16", "--batch-size", "4", "--max-update", "10",
        "--cpu", "--num-workers", "0", "--disable-validation", "--save-dir", tmp_path, *choice)
    assert_there_and_back(text, tmp_path, monkeypatch)


def test_another_file_is_refused(tmp_path, monkeypatch):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    (tmp_path / "words").write_text("a\nb\n")
    with pytest.raises(ConversionError, match="no SRU.. language model"):
        convert(monkeypatch, tmp_path / "other.pt", tmp_path / "out", "--vocabulary",
                tmp_path / "words")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("options_", [[], ["--no-weight-c", "--proj-size", "8"]])
def test_sru_language_model_there_and_back(text, tmp_path, monkeypatch, options_):
    run_command(
        options.get_training_parser, fairseq_train.main, text, "--task", "srupp_language_modeling",
        "--arch", "sru_lm_tiny", "--optimizer", "adam", "--lr", "0.01", "--tokens-per-sample", "16",
        "--batch-size", "4", "--max-update", "10", "--cpu", "--num-workers", "0",
        "--disable-validation", "--save-dir", tmp_path, *options_)
    assert_there_and_back(text, tmp_path, monkeypatch)
