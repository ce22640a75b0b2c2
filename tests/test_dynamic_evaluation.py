"""Dynamic evaluation: the rule parameter by parameter, nothing learned before it is scored, nothing
kept; fairseq-eval-lm."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.criterions import CRITERION_REGISTRY
from test_language_model import build, tokens
from test_stream_task import build_task, evaluate, train

from fairseq_sru.errors import UsageError
from fairseq_sru.tasks.dynamic_evaluation import DynamicEvaluation, Learner

RATES = {"lr": 0.003, "decay": 0.4, "epsilon": 0.001}
ADAPTIVE = ("--adaptive-cutoff", "8,16", "--adaptive-factor", "2", "--criterion", "adaptive_loss")


@pytest.fixture(scope="module", params=["plain", "adaptive"])
def path(request, lm_data, tmp_path_factory):
    more = ADAPTIVE if request.param == "adaptive" else ()
    return train(lm_data, tmp_path_factory.mktemp(request.param), "--max-epoch", "2",
                 "--ddp-backend", "legacy_ddp", *more)


@pytest.fixture
def task(lm_data):
    return build_task(lm_data, tokens_per_sample=6)


@pytest.fixture
def model(path, task):
    return checkpoint_utils.load_model_ensemble([str(path)], task=task)[0][0].double().eval()


def segments(task, split="valid"):
    """Of a text as 4 streams, at most 6."""
    task.load_dataset(split)
    batches = task._segments(task.dataset(split), 4, 5).next_epoch_itr(shuffle=False)
    return [next(batches) for _ in range(min(6, len(batches)))]


def log_probs(model, batch):
    """Of the targets, (B, T)."""
    out = model(**batch["net_input"])
    scores = model.get_normalized_probs(out, log_probs=True, sample=batch)
    return scores.gather(-1, batch["target"].unsqueeze(-1)).squeeze(-1)


def slow_gradients(model, task, batch):
    adaptive = model.decoder.adaptive_softmax is not None
    criterion = CRITERION_REGISTRY["adaptive_loss" if adaptive else "cross_entropy"]
    model.zero_grad()
    loss, tokens, _ = criterion(task, False)(model, batch)
    (loss / tokens).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def test_the_rule(model, task):
    """Scores of a whole text beside a loop that applies the paper's rule."""
    slow = copy.deepcopy(model)
    learner = Learner(model, task)
    learner.measure(segments(task, "train"))
    dynamic = DynamicEvaluation(segments(task), [learner], **RATES)
    with torch.no_grad():
        scores = [log_probs(model, batch) for batch in dynamic]
    assert len(scores) == len(dynamic) > 3

    squares = [torch.zeros_like(p) for p in slow.parameters()]
    measured = segments(task, "train")
    for batch in measured:
        for square, gradient in zip(squares, slow_gradients(slow, task, batch)):
            square += gradient**2 / len(measured)
    deviations = [square.sqrt() for square in squares]
    mean = torch.cat([r.flatten() for r in deviations]).mean()
    start = [p.detach().clone() for p in slow.parameters()]
    for batch, score in zip(segments(task), scores):
        with torch.no_grad():
            torch.testing.assert_close(score, log_probs(slow, batch), rtol=1e-9, atol=1e-9)
        gradients = slow_gradients(slow, task, batch)
        with torch.no_grad():
            for p, g, r, p0 in zip(slow.parameters(), gradients, deviations, start):
                rate = torch.minimum(RATES["decay"] * r / mean, torch.ones_like(r))
                p += -RATES["lr"] * g / (r + RATES["epsilon"]) + rate * (p0 - p)


@pytest.mark.parametrize("options", [dict(), dict(adaptive_cutoff="10,20")])
def test_a_step_goes_down_and_decay_goes_back(options):
    """The loss of what has been learned, and the distance from the start."""
    model, text = build(**options), tokens(3, 9)
    batch = dict(net_input=dict(src_tokens=text[:, :-1]), target=text[:, 1:].clone(), ntokens=24)
    learner = Learner(model, SimpleNamespace(target_dictionary=model.decoder.dictionary))
    learner.measure([batch])

    def loss():
        with torch.no_grad():
            return learner.criterion(model, batch)[0].item()

    def distance():
        return sum((p - start).square().sum().item()
                   for p, start in zip(learner.parameters, learner.start))

    before = loss()
    learner.learn(batch, lr=1e-5, decay=0.0, epsilon=1e-3)
    assert loss() < before
    moved = distance()
    learner.learn(batch, lr=0.0, decay=0.5, epsilon=1e-3)
    assert 0 < distance() < moved


def test_it_is_what_it_was_afterwards(model, task):
    before = copy.deepcopy(model.state_dict())
    learner = Learner(model, task)
    learner.measure(segments(task, "train"))
    dynamic = DynamicEvaluation(segments(task), [learner], **RATES)
    next(iter(dynamic))
    for _ in dynamic:
        pass
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_first_segment_is_scored_by_the_model_as_it_was(model, task):
    """And the second one is not."""
    with torch.no_grad():
        static = [log_probs(model, batch) for batch in segments(task)]
        learner = Learner(model, task)
        learner.measure(segments(task, "train"))
        scores = [log_probs(model, batch)
                  for batch in DynamicEvaluation(segments(task), [learner], **RATES)]
    assert torch.equal(scores[0], static[0]) and not torch.equal(scores[1], static[1])


@pytest.mark.parametrize("rates", [
    {"lr": -1.0}, {"lr": math.nan}, {"decay": -0.1}, {"decay": math.inf}, {"epsilon": 0.0}])
def test_impossible_rates(rates):
    with pytest.raises(UsageError, match=f"--dynamic-{next(iter(rates))}"):
        DynamicEvaluation([], [], **{**RATES, **rates})


def test_16_bit_parameters_are_refused(model, task):
    with pytest.raises(UsageError, match="--fp16"):
        Learner(model.half(), task)


def test_eval_lm(lm_data, path, caplog):
    """A step of size 0 changes nothing, a real one something, and the log names it."""
    static = evaluate(lm_data, path, "--eval-segment", "5")
    tiny = evaluate(lm_data, path, "--eval-segment", "5", "--dynamic-lr", "1e-12")
    assert tiny == pytest.approx(static, abs=1e-5)
    caplog.set_level("INFO")
    learned = evaluate(lm_data, path, "--eval-segment", "5", "--dynamic-lr", "0.001")
    assert abs(learned - static) > 1e-4
    assert "dynamic evaluation: the model learns" in caplog.text


def test_eval_lm_without_measured_batches(lm_data, path):
    with pytest.raises(UsageError, match="^--dynamic-batches must be a whole number, at least 1"):
        evaluate(lm_data, path, "--dynamic-lr", "0.1", "--dynamic-batches", "0")
