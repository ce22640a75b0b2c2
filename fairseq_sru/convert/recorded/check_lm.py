"""Recorded language models of the reference against ours, converted to fairseq."""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from typing import Any, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_sru.convert.language_model import (
    Vocabulary,
    entries,
    from_reference,
    to_reference,
)
from fairseq_sru.convert.layout import export_stack, to_theirs
from fairseq_sru.convert.recorded.comparison import Comparison, leave_memory_unnormalised
from fairseq_sru.models.language_model import SRUppLanguageModel
from fairseq_sru.modules import SRUpp
from fairseq_sru.state import StreamMemory, StreamState

PARAMETER = re.compile(
    r"(?:^|\.)((?:emb_weights|emb_projs|out_projs)\.\d+|out_layers\.\d+\.(?:weight|bias))$")
HEADS = ("attn_heads", "num_heads")
SETTINGS = ("ctor", "args", "config")


def check_language_model(case: Mapping[str, Any]) -> Comparison:
    """A model of train_enwik8: segments with memory in training, with gradients, and evaluation.

    Raises:
        ConversionError: it is no such model.
    """
    state = case["state_dict"]
    vocabulary = Vocabulary.read([f"w{i}" for i in range(len(state["embedding_layer.weight"]))])
    settings: Mapping[str, Any] = next((case[name] for name in SETTINGS if name in case), {})
    heads = next((settings[name] for name in HEADS if name in settings), 1)
    model, _ = from_reference(state, vocabulary, heads)
    result = Comparison(state["embedding_layer.weight"].dtype)
    for name in ("state_dict", "init_state_dict_seed7"):
        if name in case:  # in and out again
            again = to_reference(from_reference(case[name], vocabulary, heads)[0], vocabulary)
            for parameter, tensor in case[name].items():
                result.add(f"{name}, {parameter}", again[parameter], tensor)
    _check_training(model, vocabulary, case.get("train_steps", []), result)
    _check_evaluation(model, vocabulary, case, result)
    return result


def check_adaptive(case: Mapping[str, Any]) -> Comparison:
    """An adaptive embedding and an adaptive softmax.

    Raises:
        ConversionError, KeyError: they are not.
    """
    params = {}
    for name, tensor in _flatten(case["params"]):
        known = PARAMETER.search(name)
        if known is not None:
            params[known[1]] = tensor
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    while f"out_layers.{len(weights)}.weight" in params:
        weights.append(params[f"out_layers.{len(weights)}.weight"])
        biases.append(params[f"out_layers.{len(biases)}.bias"])
    bands = range(len(weights))
    projs = [params[f"out_projs.{i}"] for i in bands]
    result = Comparison(case["nll"].dtype)
    result.notes.append("not compared: gradients, of a loss that is not recorded")

    softmax, vocabulary = _adaptive_model(weights, biases, projs)
    with torch.no_grad():
        scores = softmax.decoder.adaptive_softmax.get_log_prob(case["hidden"].unsqueeze(0), None)[0]
    nll = -scores.gather(1, vocabulary.rows[case["target"]].unsqueeze(1)).squeeze(1)
    ends = torch.tensor([len(w) for w in weights]).cumsum(0) - len(weights) + 1
    in_bands = nll[torch.bucketize(case["target"], ends, right=True).argsort(stable=True)]
    in_order = (nll - case["nll"]).abs().max() <= (in_bands - case["nll"]).abs().max()
    result.add("nll", nll if in_order else in_bands, case["nll"])

    first = params.get("emb_weights.0", weights[0])[: ends[0]]
    words = [torch.cat([first, weights[0][ends[0] :]])]
    words += [params.get(f"emb_weights.{i}", weights[i]) for i in bands[1:]]
    projs = [params.get(f"emb_projs.{i}", projs[i]) for i in bands]
    embedding, vocabulary = _adaptive_model(words, biases, projs)
    with torch.no_grad():
        embedded = embedding.decoder.embed_tokens(vocabulary.rows[case["ids"]])
    result.add("embedded", embedded, case["embedded"])
    return result


def _flatten(values: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(values, Tensor):
        yield prefix, values
        return
    for name, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        yield from _flatten(value, f"{prefix}.{name}")


def _adaptive_model(
    weights: list[Tensor], biases: list[Tensor], projs: list[Tensor]
) -> tuple[SRUppLanguageModel, Vocabulary]:
    """A language model of ours with this adaptive embedding and softmax."""
    hidden = projs[0].size(0)
    stack = export_stack(SRUpp(hidden, hidden, 1, 1))
    state = {f"rnn.{name}": tensor for name, tensor in stack.items()}
    for i, (weight, bias, proj) in enumerate(zip(weights, biases, projs)):
        state[f"output_layer.out_layers.{i}.weight"] = weight
        state[f"output_layer.out_layers.{i}.bias"] = bias
        state[f"output_layer.out_projs.{i}"] = state[f"embedding_layer.emb_projs.{i}"] = proj
    size = sum(map(len, weights)) - len(weights) + 1
    vocabulary = Vocabulary.read([f"w{i}" for i in range(size)])
    return from_reference(state, vocabulary)[0].eval(), vocabulary


def _check_training(
    model: SRUppLanguageModel, vocabulary: Vocabulary, steps: list[Mapping[str, Any]],
    result: Comparison,
) -> None:
    """Each segment starts from the recorded state of the one before."""
    model.train()
    for i, step in enumerate(steps):
        inputs = steps[i - 1]["memory_out"] if i else [None] * len(model.decoder.stack.layers)
        before = StreamState(step["hidden_in"], inputs)
        memory = StreamMemory(len(step["x"]), 0, before)
        model.zero_grad()
        losses, after = _read(model, vocabulary, step["x"], step["y"], memory, result)
        loss = losses.mean()
        loss.backward()
        recorded = torch.as_tensor(step["loss"], dtype=loss.dtype)
        result.add(f"step {i}, loss", losses if recorded.dim() else loss, recorded)
        result.add(f"step {i}, hidden_out", after.cells, step["hidden_out"])
        for j, (ours, theirs) in enumerate(zip(after.inputs, step["memory_out"])):
            if ours is not None:
                result.add(f"step {i}, memory_out {j}", ours, theirs)
        grads = {n: torch.zeros_like(p) if p.grad is None else p.grad
                 for n, p in model.named_parameters()}
        for name, grad in to_theirs(entries(model, vocabulary), grads).items():
            result.add(f"step {i}, grad {name}", grad, step["grads"].get(name))


def _check_evaluation(
    model: SRUppLanguageModel, vocabulary: Vocabulary, case: Mapping[str, Any], result: Comparison
) -> None:
    """Perplexity and loss (nats per token) of the text x with targets y."""
    steps = case.get("train_steps", [])
    recorded = case.get("eval_float64")
    if not steps or recorded is None:
        return
    if not all(isinstance(number, float) for number in recorded):
        result.notes.append("not compared: eval_float64, which is not perplexity and loss")
        return
    segment = len(steps[0]["x"])
    memory = StreamMemory(segment, segment)
    total = 0.0
    model = model.double().eval()
    with torch.no_grad():
        for x, y in zip(case["x"].split(segment), case["y"].split(segment)):
            losses, after = _read(model, vocabulary, x, y, memory, result)
            total += losses.sum().item()
            memory = StreamMemory(segment, segment, after)
    loss = total / case["y"].numel()
    ours = torch.tensor([math.exp(loss), loss], dtype=torch.float64)
    result.add("eval_float64", ours, torch.tensor(recorded, dtype=torch.float64))


def _read(
    model: SRUppLanguageModel, vocabulary: Vocabulary, x: Tensor, y: Tensor, memory: StreamMemory,
    result: Comparison,
) -> tuple[Tensor, StreamState]:
    """Losses (L, B) of a segment x, y (L, B), and the state it leaves."""
    context = None if memory.before is None else memory.before.inputs
    with ExitStack() as hooks:
        leave_memory_unnormalised(model.decoder.stack, context, None, hooks, result)
        scores, _ = model.decoder(vocabulary.rows[x].t(), memory=memory)
    losses = F.cross_entropy(scores.flatten(0, 1), vocabulary.rows[y].t().flatten(),
                             reduction="none")
    assert memory.after is not None
    return losses.view(scores.shape[:2]).t(), memory.after
