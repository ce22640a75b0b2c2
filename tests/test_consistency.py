"""R-Drop and SimCut: loss and gradients beside ones worked out token by token, the disturbance
itself, fairseq's commands."""

import copy
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import TRAIN_OPTIONS, run_fairseq, train, train_on_two_ranks
from fairseq import utils
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.data import Dictionary
from fairseq.logging import metrics
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY

import fairseq_sru
from fairseq_sru.criterions import consistency
from fairseq_sru.errors import UsageError
from fairseq_sru.models.config import PRESETS, SRUppConfig
from fairseq_sru.models.translation import SRUppModel

fairseq_sru.register()

PAD = 1
SMOOTHING, WEIGHT = 0.1, 2.5
OPTIONS = {"r_drop": {"r_drop_weight": WEIGHT},
           "simcut": {"simcut_weight": WEIGHT, "simcut_probability": 0.3}}
DROPOUTS = ("dropout", "embedding_dropout", "attention_dropout", "output_dropout")


@pytest.fixture(autouse=True)
def softmax_in_float64(monkeypatch):
    """fairseq's softmaxes are float32 whatever they are given."""
    monkeypatch.setattr(utils, "softmax", lambda x, dim, onnx_trace=False: F.softmax(x, dim))
    monkeypatch.setattr(
        utils, "log_softmax", lambda x, dim, onnx_trace=False: F.log_softmax(x, dim))


def make_task(types=20):
    words = Dictionary()
    for i in range(types - len(words)):
        words.add_symbol(f"w{i}")
    return SimpleNamespace(source_dictionary=words, target_dictionary=words)


def build_srupp(preset, **options):
    torch.manual_seed(0)
    return SRUppModel.build_model(SRUppConfig(**{**PRESETS[preset], **options}), make_task())


def build_model(arch, dropout):
    if arch == "srupp_tiny":
        return build_srupp(arch, **dict.fromkeys(DROPOUTS, dropout)).double().train()
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "sru_dropout": dropout,
             **dict.fromkeys(DROPOUTS, dropout)}
    if arch == "transformer_iwslt_de_en":
        for side in ("encoder", "decoder"):
            sizes.update({f"{side}_embed_dim": 8, f"{side}_ffn_embed_dim": 8,
                          f"{side}_attention_heads": 2})
    args = Namespace(**sizes)
    ARCH_CONFIG_REGISTRY[arch](args)
    torch.manual_seed(0)
    return ARCH_MODEL_REGISTRY[arch].build_model(args, make_task()).double().train()


def build_criterion(name, **options):
    cfg = SimpleNamespace(**{
        "label_smoothing": SMOOTHING, "ignore_prefix_size": 0, "report_accuracy": True,
        "sentence_avg": False, **OPTIONS[name], **options,
    })
    return CRITERION_REGISTRY[name].build_criterion(cfg, make_task())


@pytest.fixture
def sample():
    """Two sentences of different lengths on both sides."""
    source = torch.tensor([[5, 6, 7, 8, 2], [PAD, PAD, 9, 10, 2]])
    target = torch.tensor([[11, 5, 12, 2], [13, 2, PAD, PAD]])
    previous = torch.tensor([[2, 11, 5, 12], [2, 13, PAD, PAD]])
    return {
        "target": target, "ntokens": 6,
        "net_input": {"src_tokens": source, "src_lengths": torch.tensor([5, 3]),
                      "prev_output_tokens": previous},
    }


def distributions(model, sample):
    return F.softmax(model(**sample["net_input"])[0], -1)


def cross_entropy(distribution, target):
    """Smoothed, of one token: the other words share what the right one gives up."""
    other = SMOOTHING / (len(distribution) - 1)
    weights = torch.full_like(distribution, other)
    weights[target] = 1 - SMOOTHING
    return -sum(w * p.log() for w, p in zip(weights, distribution))


def divergence(p, q):
    return sum(a * (a.log() - b.log()) for a, b in zip(p, q))


def slow_r_drop(first, second, target):
    loss = (cross_entropy(first, target) + cross_entropy(second, target)) / 2
    return loss + WEIGHT / 2 * (divergence(first, second) + divergence(second, first)) / 2


def slow_simcut(first, second, target):
    return cross_entropy(first, target) + WEIGHT * divergence(first, second)


def slow_loss(function, first, second, target):
    return sum(function(first[i, t], second[i, t], int(target[i, t]))
               for i, t in (target != PAD).nonzero().tolist())


def assert_same_gradients(loss, model, slow, slow_model):
    loss.backward()
    slow.backward()
    for (name, p), q in zip(model.named_parameters(), slow_model.parameters()):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12, msg=name)


ARCHITECTURES = ["srupp_tiny", "transformer_iwslt_de_en", "transformer_sru_tiny"]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_r_drop_token_by_token(arch, sample):
    model = build_model(arch, dropout=0.2)
    slow_model = copy.deepcopy(model)
    torch.manual_seed(1)
    loss, size, log = build_criterion("r_drop")(model, sample)
    torch.manual_seed(1)
    first, second = distributions(slow_model, sample), distributions(slow_model, sample)
    assert not torch.equal(first, second)
    slow = slow_loss(slow_r_drop, first, second, sample["target"])
    torch.testing.assert_close(loss, slow, rtol=1e-10, atol=0)
    assert size == 6 and log["divergence"] > 0 and log["total"] == 6
    assert_same_gradients(loss, model, slow, slow_model)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_simcut_token_by_token(arch, sample, monkeypatch):
    """Every third word is cut: as if its embedding, as an input, were zero."""
    model = build_model(arch, dropout=0.0)
    slow_model = copy.deepcopy(model)
    monkeypatch.setattr(consistency, "draw_kept", lambda tokens, probability: tokens % 3 != 0)
    loss, size, log = build_criterion("simcut")(model, sample)

    kept = (torch.arange(20) % 3 != 0).double().unsqueeze(-1)
    first = distributions(slow_model, sample)
    embeddings = {module.embed_tokens for module in (slow_model.encoder, slow_model.decoder)}
    for embedding in embeddings:
        embedding.forward = lambda tokens, e=embedding: F.embedding(tokens, e.weight * kept, PAD)
    second = distributions(slow_model, sample)
    assert not torch.equal(first, second)
    slow = slow_loss(slow_simcut, first, second, sample["target"])
    torch.testing.assert_close(loss, slow, rtol=1e-10, atol=0)
    assert size == 6 and log["divergence"] > 0
    assert_same_gradients(loss, model, slow, slow_model)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_cut_tokens(arch):
    """Whole tokens, anew at every call, as often as asked for, and not after that."""
    model = build_model(arch, dropout=0.0)
    embedding = model.encoder.embed_tokens
    tokens = torch.randint(4, 20, (40, 50))
    whole = embedding(tokens)
    torch.manual_seed(3)
    with consistency.cut_tokens(model, 0.25):
        first, second = embedding(tokens), embedding(tokens)
    for cut in (first, second):
        gone = (cut == 0).all(-1)
        assert abs(gone.double().mean() - 0.25) < 0.05
        assert torch.equal(cut, whole.masked_fill(gone.unsqueeze(-1), 0))
    assert not torch.equal(first, second)
    assert torch.equal(embedding(tokens), whole)


def test_cut_tokens_end_with_an_error():
    model = build_model("srupp_tiny", dropout=0.0)
    with pytest.raises(KeyError), consistency.cut_tokens(model, 0.5):
        raise KeyError
    assert not model.encoder.embed_tokens._forward_hooks


def test_a_model_without_embeddings_is_refused():
    with pytest.raises(UsageError, match="--criterion r_drop"):
        with consistency.cut_tokens(torch.nn.Linear(2, 2), 0.1):
            pass


@pytest.mark.parametrize("name", OPTIONS)
def test_validation_is_cross_entropy(name, sample):
    model = build_model("srupp_tiny", dropout=0.2).eval()
    plain = SimpleNamespace(label_smoothing=SMOOTHING, sentence_avg=False)
    reference = CRITERION_REGISTRY["label_smoothed_cross_entropy"].build_criterion(
        plain, make_task())
    loss, _, log = build_criterion(name)(model, sample)
    torch.testing.assert_close(loss, reference(model, sample)[0], rtol=1e-14, atol=0)
    assert "divergence" not in log


@pytest.mark.parametrize("name", OPTIONS)
def test_loss_of_each_token(name, sample):
    """Without the sum; behind the end of a sentence 0."""
    model, criterion = build_model("srupp_tiny", dropout=0.2), build_criterion(name)
    torch.manual_seed(1)
    each, *_ = criterion(model, sample, reduce=False)
    torch.manual_seed(1)
    total, *_ = criterion(model, sample)
    torch.testing.assert_close(each.sum(), total)
    assert torch.equal(each.view(-1) != 0, sample["target"].view(-1) != PAD)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("options", [{"ignore_prefix_size": 1}, {"sentence_avg": True}])
def test_options_of_cross_entropy(name, options, sample):
    loss, size, _ = build_criterion(name, **options)(build_model("srupp_tiny", 0.0), sample)
    whole, tokens, _ = build_criterion(name)(build_model("srupp_tiny", 0.0), sample)
    assert (loss < whole) == ("ignore_prefix_size" in options)
    assert (size == 2) == ("sentence_avg" in options) and tokens == 6


@pytest.mark.parametrize("name, options", [
    ("r_drop", {"r_drop_weight": -1.0}), ("r_drop", {"r_drop_weight": float("nan")}),
    ("simcut", {"simcut_weight": -0.1}), ("simcut", {"simcut_probability": 1.0}),
    ("simcut", {"simcut_probability": -0.1}), ("simcut", {"simcut_probability": float("nan")}),
])
def test_impossible_options(name, options):
    with pytest.raises(UsageError):
        build_criterion(name, **options)


def test_divergence_is_logged_by_the_token():
    logs = [{"divergence": 3.0, "ntokens": 4, "sample_size": 4, "loss": 1.0, "nll_loss": 1.0},
            {"divergence": 2.0, "ntokens": 6, "sample_size": 6, "loss": 1.0, "nll_loss": 1.0}]
    with metrics.aggregate(new_root=True) as logged:
        CRITERION_REGISTRY["simcut"].reduce_metrics(logs)
    assert logged.get_smoothed_values()["divergence"] == 0.5


@pytest.mark.command
@pytest.mark.parametrize("name, arch", [("r_drop", "transformer_tiny"), ("simcut", "srupp_tiny")])
def test_training(name, arch, data, tmp_path):
    log = train(data, tmp_path, "--arch", arch, "--criterion", name, "--max-update", "6",
                "--label-smoothing", "0.1", "--bf16", "--no-epoch-checkpoints")
    assert "divergence=" in log.stdout + log.stderr
    run_fairseq("validate", data, "--path", tmp_path / "checkpoint_last.pt", "--cpu",
                "--user-dir", fairseq_sru.__path__[0], "--task", "translation", "--batch-size", "8")


@pytest.mark.command
def test_two_processes(data, tmp_path):
    assert "divergence" in train_on_two_ranks(
        data, *TRAIN_OPTIONS, "--criterion", "simcut", "--max-update", "2",
        "--save-dir", tmp_path)
