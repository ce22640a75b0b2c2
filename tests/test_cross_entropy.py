"""Losses of logits beside ones worked out number by number in float64, and the criterion that takes
them beside fairseq's own."""

import copy
import math
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import TRAIN_OPTIONS, train, train_on_two_ranks
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY, FairseqDecoder

import fairseq_sru
from fairseq_sru.criterions.fused import predicts_by_softmax
from fairseq_sru.models.config import PRESETS, SRUppConfig
from fairseq_sru.models.translation import SRUppModel
from fairseq_sru.ops import cross_entropy, divergence
from fairseq_sru.ops.extension import COMPILED

fairseq_sru.register()

IGNORED = 1
SHAPES = [(1, 1), (1, 2), (3, 5), (4, 16), (5, 17), (2, 33), (7, 1000), (70, 4099)]
TYPES = [torch.float64, torch.float32, torch.bfloat16]


def draw(rows, types, dtype=torch.float64, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed + rows + types)
    x = scale * torch.randn(rows, types, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def draw_target(rows, types):
    generator = torch.Generator().manual_seed(rows * types)
    return torch.randint(types, (rows,), generator=generator)


def by_hand(logits, target):
    """(nll, mean of the vocabulary's), 0 in rows that are ignored."""
    nll, means = [], []
    for row, right in zip(logits.double().tolist(), target.tolist()):
        z = max(row) + math.log(math.fsum(math.exp(x - max(row)) for x in row))
        nll.append(0.0 if right == IGNORED else z - row[right])
        means.append(0.0 if right == IGNORED else z - math.fsum(row) / len(row))
    return torch.tensor(nll, dtype=torch.float64), torch.tensor(means, dtype=torch.float64)


def divergence_by_hand(p, q):
    log_p, log_q = F.log_softmax(p.double(), -1), F.log_softmax(q.double(), -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def assert_near(actual, expected, dtype):
    """To the rounding of the type that came out, or, of a gradient, of the logits."""
    rough = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 8e-3}[actual.dtype]
    scale = expected.abs().max().clamp(min=1).item()
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=max(rough, 2e-6 if dtype != torch.float64 else 0),
        atol=rough * scale)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy(shape, dtype):
    logits, target = draw(*shape, dtype), draw_target(*shape)
    wide = logits.detach().double().requires_grad_()
    nll, mean_nll = cross_entropy(logits, target, IGNORED)
    assert nll.dtype == mean_nll.dtype == torch.promote_types(dtype, torch.float32)
    for actual, expected in zip((nll, mean_nll), by_hand(logits, target)):
        assert_near(actual.detach(), expected, dtype)

    weights = draw(2, shape[0]).detach()
    (weights[0] @ nll.double() + weights[1] @ mean_nll.double()).backward()
    log_probs = F.log_softmax(wide, -1)
    real = (target != IGNORED).double()
    slow = -(weights[0] * real) @ log_probs.gather(1, target.unsqueeze(1)).squeeze(1)
    (slow - (weights[1] * real) @ log_probs.mean(-1)).backward()
    assert_near(logits.grad, wide.grad, dtype)
    assert not logits.grad[target == IGNORED].any()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_divergence(shape, dtype):
    p, q = draw(*shape, dtype), draw(*shape, dtype, seed=7)
    wide_p, wide_q = (x.detach().double().requires_grad_() for x in (p, q))
    kl, expected = divergence(p, q), divergence_by_hand(wide_p, wide_q)
    assert_near(kl.detach(), expected.detach(), dtype)
    weights = draw(1, shape[0]).detach().squeeze(0)
    (weights @ kl.double()).backward()
    (weights @ expected).backward()
    assert_near(p.grad, wide_p.grad, dtype)
    assert_near(q.grad, wide_q.grad, dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_strides_do_not_matter(dtype):
    whole = draw(6, 40, dtype).detach()
    target = draw_target(12, 20)[::2]
    for view in (whole[:, ::2], whole[:, :20], whole.t().contiguous().t()[:, :20]):
        for a, b in zip(cross_entropy(view, target), cross_entropy(view.contiguous(), target)):
            assert torch.equal(a, b)
        assert torch.equal(
            divergence(view, view.flip(1)), divergence(view.contiguous(), view.flip(1)))


@pytest.mark.parametrize("dtype", TYPES)
def test_large_and_infinite_logits(dtype):
    inf = float("inf")
    rows = [[1e4, -1e4, 0.0], [0.0, -inf, 0.0], [-3e4, -3e4, -3e4]]
    logits = torch.tensor(rows, dtype=dtype, requires_grad=True)
    nll, _ = cross_entropy(logits, torch.tensor([0, 2, 1]))
    torch.testing.assert_close(
        nll.detach(), torch.tensor([0, math.log(2), math.log(3)], dtype=nll.dtype))
    nll.sum().backward()
    third = 1 / 3
    torch.testing.assert_close(logits.grad, torch.tensor(
        [[0, 0, 0], [0.5, 0, -0.5], [third, third - 1, third]], dtype=dtype))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", TYPES)
def test_nan_stays_in_its_row(dtype, bad):
    logits, target = draw(4, 19, dtype), torch.tensor([3, 4, IGNORED, 5])
    clean, clean_grad = cross_entropy(logits, target, IGNORED), None
    clean_grad, = torch.autograd.grad(sum(part.sum() for part in clean), logits)
    with torch.no_grad():
        logits[1, 7] = logits[2, 8] = bad
    parts = cross_entropy(logits, target, IGNORED)
    grad, = torch.autograd.grad(sum(part.sum() for part in parts), logits)
    for part, expected in zip(parts, clean):
        assert part[1].isnan() or part[1].isinf()
        assert torch.equal(part[[0, 2, 3]], expected[[0, 2, 3]])
    assert grad[1].isnan().any()
    assert torch.equal(grad[[0, 2, 3]], clean_grad[[0, 2, 3]])


def second_order(loss, logits):
    (grad,) = torch.autograd.grad(loss(logits), logits, create_graph=True)
    return torch.autograd.grad(grad.nan_to_num().pow(2).sum(), logits)[0]


GRADIENTS = {
    "first order": lambda loss, logits: torch.autograd.grad(loss(logits), logits)[0],
    "second order": second_order,
    "torch.func": lambda loss, logits: torch.func.grad(loss)(logits.detach()),
}


@pytest.mark.parametrize("order", GRADIENTS)
@pytest.mark.parametrize("dtype", [*TYPES, torch.float16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_ignored_rows_have_no_gradient_whatever_they_hold(dtype, bad, order):
    logits, target = draw(4, 19, dtype), torch.tensor([3, IGNORED, IGNORED, 5])

    def loss(x):
        return sum(part.sum() for part in cross_entropy(x, target, IGNORED))

    clean = GRADIENTS[order](loss, logits)
    assert clean[0].any() and not clean[1:3].any()
    with torch.no_grad():
        logits[1, 7] = logits[2, 3:] = bad
    assert torch.equal(GRADIENTS[order](loss, logits), clean)


@pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")
def test_first_order_keeps_no_probabilities(monkeypatch):
    monkeypatch.setattr(F, "log_softmax", None)
    p, q = draw(3, 9, torch.bfloat16), draw(3, 9, torch.bfloat16, seed=1)
    (cross_entropy(p, draw_target(3, 9))[0].sum() + divergence(p, q).sum()).backward()
    assert p.grad.any() and q.grad.any()


def test_no_rows():
    logits = torch.zeros(0, 5, requires_grad=True)
    nll, _ = cross_entropy(logits, torch.zeros(0, dtype=torch.long))
    (nll.sum() + divergence(logits, logits).sum()).backward()
    assert nll.shape == (0,) and logits.grad.shape == (0, 5)


@pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")
@pytest.mark.parametrize("error, call", [
    (ValueError, lambda: cross_entropy(torch.zeros(2, 3, 4), torch.zeros(2).long())),
    (ValueError, lambda: cross_entropy(torch.zeros(2, 0), torch.zeros(2).long())),
    (ValueError, lambda: cross_entropy(torch.zeros(2, 3), torch.zeros(3).long())),
    (TypeError, lambda: cross_entropy(torch.zeros(2, 3), torch.zeros(2))),
    (IndexError, lambda: cross_entropy(torch.zeros(2, 3), torch.tensor([0, 3]))),
    (IndexError, lambda: cross_entropy(torch.zeros(2, 3), torch.tensor([0, -1]))),
    (ValueError, lambda: divergence(torch.zeros(2, 3), torch.zeros(2, 4))),
    (TypeError, lambda: divergence(torch.zeros(2, 3), torch.zeros(2, 3).double())),
])
def test_impossible_input(error, call):
    with pytest.raises(error):
        call()


def make_task():
    words = Dictionary()
    for i in range(20 - len(words)):
        words.add_symbol(f"w{i}")
    return SimpleNamespace(source_dictionary=words, target_dictionary=words)


def build_model(arch):
    torch.manual_seed(0)
    if arch == "srupp_tiny":
        return SRUppModel.build_model(SRUppConfig(**PRESETS[arch]), make_task()).eval()
    args = Namespace(encoder_layers=1, decoder_layers=1)
    if arch == "transformer-adaptive":
        args.adaptive_softmax_cutoff = "8,12"
        args.decoder_embed_dim = args.decoder_output_dim = 16
        args.encoder_embed_dim = 16
        args.encoder_attention_heads = args.decoder_attention_heads = 2
    arch = arch.split("-")[0]
    ARCH_CONFIG_REGISTRY[arch](args)
    return ARCH_MODEL_REGISTRY[arch].build_model(args, make_task()).eval()


@pytest.fixture
def sample():
    pad = IGNORED
    return {
        "target": torch.tensor([[11, 5, 12, 2], [13, 2, pad, pad]]), "ntokens": 6,
        "net_input": {
            "src_tokens": torch.tensor([[5, 6, 7, 8, 2], [pad, pad, 9, 10, 2]]),
            "src_lengths": torch.tensor([5, 3]),
            "prev_output_tokens": torch.tensor([[2, 11, 5, 12], [2, 13, pad, pad]]),
        },
    }


ARCHITECTURES = ["srupp_tiny", "transformer_tiny", "transformer_sru_tiny", "transformer-adaptive"]


@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("options", [
    {}, {"label_smoothing": 0.0}, {"ignore_prefix_size": 1}, {"sentence_avg": True},
    {"report_accuracy": True}], ids=lambda options: "".join(options) or "plain")
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_criterion_equals_fairseqs(arch, options, reduce, sample):
    """Loss, size, what is logged, and gradients."""
    cfg = SimpleNamespace(**{
        "label_smoothing": 0.1, "ignore_prefix_size": 0, "report_accuracy": False,
        "sentence_avg": False, **options})
    models = [build_model(arch)]
    models.append(copy.deepcopy(models[0]))
    results = []
    for model, prefix in zip(models, ("fused_", "")):
        name = f"{prefix}label_smoothed_cross_entropy"
        criterion = CRITERION_REGISTRY[name].build_criterion(cfg, make_task())
        with torch.set_grad_enabled(arch != "transformer-adaptive"):  # which has its own loss
            loss, size, log = criterion(model, sample, reduce=reduce)
        if loss.requires_grad:
            loss.sum().backward()
        results.append((loss, size, {key: torch.as_tensor(value) for key, value in log.items()}))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    for (name, p), q in zip(models[0].named_parameters(), models[1].parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_probabilities_of_its_own_are_asked_for():
    """What a model makes of its first output, softmax or not, is what the loss is taken of."""
    class Copying(FairseqDecoder):
        def get_normalized_probs(self, net_output, log_probs, sample=None):
            return net_output[0].log() if log_probs else net_output[0]

    for arch in ARCHITECTURES:
        assert predicts_by_softmax(build_model(arch)) == (arch != "transformer-adaptive"), arch
    model = build_model("transformer_tiny")
    model.decoder = Copying(model.decoder.dictionary)
    assert not predicts_by_softmax(model)


@pytest.mark.command
@pytest.mark.parametrize("arch", ["transformer_tiny", "srupp_tiny"])
def test_training(arch, data, tmp_path):
    options = ("--arch", arch, "--max-update", "4", "--label-smoothing", "0.1",
               "--no-epoch-checkpoints", "--log-format", "json")
    fused, plain = (
        train(data, tmp_path / criterion, *options, "--criterion", criterion)
        for criterion in ("fused_label_smoothed_cross_entropy", "label_smoothed_cross_entropy"))
    losses = [[line.split('"valid_loss": ')[1].split(",")[0]
               for line in (run.stdout + run.stderr).splitlines() if '"valid_loss"' in line]
              for run in (fused, plain)]
    assert losses[0] and losses[0] == losses[1]


@pytest.mark.command
def test_two_processes(data, tmp_path):
    assert "nll_loss" in train_on_two_ranks(
        data, *TRAIN_OPTIONS, "--criterion", "fused_label_smoothed_cross_entropy",
        "--max-update", "2", "--save-dir", tmp_path)
