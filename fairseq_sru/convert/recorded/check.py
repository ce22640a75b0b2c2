"""Recorded runs of the reference implementation against ours: outputs, final states, gradients."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Iterator

import torch
from torch import Tensor

from fairseq_sru.convert.layout import (
    ConversionError,
    blocks_to_ours,
    load_stack,
    stack_entries,
    to_theirs,
)
from fairseq_sru.convert.options import build_stack
from fairseq_sru.convert.recorded.comparison import Comparison, Result, leave_memory_unnormalised
from fairseq_sru.convert.recorded.tape import replay
from fairseq_sru.modules import SRU, SRUpp
from fairseq_sru.ops import recurrence, recurrence_tanh

NORM_OF_PADDING = (
    "differs: the reference's post-norm puts its bias out at padded steps, ours 0; compared with "
    "the bias put there")
NAN_COLUMNS = (
    "differs: the reference gives NaN in columns {} (softmax over nothing but padding) and in "
    "every gradient of a parameter, ours are finite; all other numbers are compared")


def check_folder(folder: Path) -> Iterator[Result]:
    """Check every ``*.pt`` of a folder.

    Raises:
        ConversionError: there is none.
    """
    paths = sorted(folder.glob("*.pt"))
    if not paths:
        raise ConversionError(f"{folder} has no *.pt files")
    for path in paths:
        try:
            case = torch.load(path, map_location="cpu", weights_only=True)
            yield check_case(case).result(path.name)
        except Exception as error:  # whatever is wrong with a file, the others are still checked
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            yield Result(path.name, float("inf"), reason, 0.0, [])


def check_case(case: dict[str, Any]) -> Comparison:
    """Run one recorded case.

    Raises:
        ConversionError, KeyError: it is not laid out as a case.
    """
    if "attrs" in case:
        return _check_op(case)
    if "chunks" in case:
        return _check_chunks(case)
    if "train_steps" in case or "nll" in case:
        from fairseq_sru.convert.recorded import check_lm  # which needs fairseq

        run = check_lm.check_language_model if "train_steps" in case else check_lm.check_adaptive
        return run(case)
    return _check_stack(case)


def _check_op(case: dict[str, Any]) -> Comparison:
    attrs, inputs = case["attrs"], case["inputs"]
    result = Comparison(inputs["U"].dtype)
    if inputs["weight_c"].dim() > 1:
        raise ConversionError("weight_c of every step: our op has one weight_c for all")
    leaves = {
        name: inputs[name].clone().requires_grad_()
        for name in ("U", "x", "weight_c", "bias", "c0")
        if inputs[name] is not None
    }
    x = leaves["x"]
    u = blocks_to_ours(leaves["U"], attrs["k"], 2).unflatten(-1, (attrs["k"], -1))
    if not attrs["has_skip_term"] or attrs["k"] == 4:
        x = None
    if not attrs["has_skip_term"]:
        u = u[:, :, :3]
    run = recurrence_tanh if attrs["activation_type"] else recurrence
    h, c = run(
        u, x, leaves["weight_c"].view(2, -1), leaves["bias"].view(2, -1), leaves.get("c0"),
        None if inputs["mask_pad"] is None else inputs["mask_pad"].bool(), inputs["mask_c"],
        1.0 if inputs["scale_x"] is None else float(inputs["scale_x"]), attrs["bidirectional"])
    result.add("h", h, case["outputs"]["h"])
    result.add("c_last", c, case["outputs"]["c_last"])
    grads = torch.autograd.grad(
        [h, c], list(leaves.values()), [case["cotangents"]["h"], case["cotangents"]["c_last"]],
        allow_unused=True)
    for name, grad in zip(leaves, grads):
        result.add(f"grad {name}", grad, case["grads"][name])
    return result


def _check_chunks(case: dict[str, Any]) -> Comparison:
    """Segments in a row, each with the layer inputs of the one before as memory."""
    stack = build_stack("SRUpp", case["ctor"])
    load_stack(stack, case["state_dict"])
    stack.eval()
    result = Comparison(case["chunks"][0]["h"].dtype)
    memory = None
    for i, chunk in enumerate(case["chunks"]):
        with ExitStack() as hooks, torch.no_grad():
            leave_memory_unnormalised(stack, memory, None, hooks, result)
            out = stack(chunk["input"], chunk["c0"], context=memory, mask=chunk["attn_mask"])
        result.add(f"chunk {i}, h", out.h, chunk["h"])
        result.add(f"chunk {i}, c", out.c, chunk["c"])
        result.add_all(f"chunk {i}, saved input", out.inputs, chunk["saved_inputs"])
        memory = out.inputs
    return result


def _check_stack(case: dict[str, Any]) -> Comparison:
    stack = build_stack(case.get("kind"), case["ctor"])
    load_stack(stack, case["state_dict"])
    stack.train(case["train"])
    inputs, outputs = case["inputs"], case["outputs"]
    result = Comparison(outputs["h"].dtype)
    x = inputs["input"].clone().requires_grad_()
    leaves = {"input": x}
    if inputs["c0"] is not None:
        leaves["c0"] = inputs["c0"].clone().requires_grad_()
    pad = None if inputs["mask_pad"] is None else inputs["mask_pad"].bool()
    memory = inputs.get("memory")
    if memory is not None:
        memory = [None if m is None else m.clone().requires_grad_() for m in memory]
        leaves.update({f"memory.{i}": m for i, m in enumerate(memory) if m is not None})
    context_length = memory[0].size(0) if memory and memory[0] is not None else 0

    with ExitStack() as hooks:
        leave_memory_unnormalised(stack, memory, inputs.get("memory_mask_pad"), hooks, result)
        hooks.enter_context(replay(stack, case["dropout_tape"], tuple(x.shape[:2]), context_length,
                                   case["ctor"].get("rnn_dropout", 0.0)))
        if isinstance(stack, SRU):
            h, c = stack(x, leaves.get("c0"), pad)
            saved = []
        else:
            h, c, saved, _ = stack(
                x, leaves.get("c0"), pad, memory, inputs["memory_mask_pad"],
                mask=inputs["attn_mask"])

    columns = _undefined_columns(stack, inputs)
    of_columns = columns.unsqueeze(-1)
    of_parameters = columns.any()
    if of_parameters:
        result.notes.append(NAN_COLUMNS.format(columns.nonzero().flatten().tolist()))
    if pad is not None:
        ended = pad.all(0)  # nothing but padding: 0, and the state stays what it was
        start = leaves["c0"] if "c0" in leaves else torch.zeros_like(c)
        result.add("h of padding", h[:, ended], torch.zeros_like(h[:, ended]))
        result.add("c after padding", c[:, ended], start[:, ended].detach())
        if stack.layers[0].post_norm is not None and pad.any():
            result.notes.append(NORM_OF_PADDING)
        h = _put_norm_bias(stack.layers[-1], h, pad)
        saved = [
            _put_norm_bias(stack.layers[i - 1], x, pad) if i else x for i, x in enumerate(saved)
        ]
    if case["ctor"].get("nn_rnn_compatible_return"):
        directions = 2 if case["ctor"].get("bidirectional") else 1
        c = c.unflatten(-1, (directions, -1)).transpose(1, 2).flatten(0, 1)

    result.add("h", h, outputs["h"], of_columns)
    result.add("c", c, outputs["c"], of_columns)
    result.add_all("saved input", saved, outputs.get("saved_inputs", []), of_columns)
    cotangents = case["cotangents"]
    loss = (h * cotangents["h"]).sum() + (c * cotangents["c"]).sum()
    result.add("loss", loss, loss.new_tensor(case["loss"]), of_parameters)
    _compare_gradients(case, stack, loss, leaves, result, of_columns, of_parameters)
    return result


def _compare_gradients(
    case: dict[str, Any], stack: SRU | SRUpp, loss: Tensor, leaves: dict[str, Tensor],
    result: Comparison, of_columns: Tensor, of_parameters: Tensor,
) -> None:
    parameters = {n: p for n, p in stack.named_parameters() if p.requires_grad}
    tensors = {**leaves, **parameters}
    grads = dict(zip(tensors, torch.autograd.grad(
        loss, list(tensors.values()), allow_unused=True)))
    for name in leaves:
        result.add(f"grad {name}", grads[name], case["grad_inputs"][name], of_columns)
    entries = [e for e in stack_entries(stack) if e.ours in parameters]
    known = {e.theirs for e in stack_entries(stack)}
    unknown = case["grad_params"].keys() - known
    if unknown:
        raise ConversionError(f"grad_params has unknown names: {', '.join(sorted(unknown))}")
    zeros = {name: torch.zeros_like(p) for name, p in parameters.items() if grads[name] is None}
    for name, grad in to_theirs(entries, {**grads, **zeros}).items():
        result.add(f"grad {name}", grad, case["grad_params"][name], of_parameters)


def _undefined_columns(stack: SRU | SRUpp, inputs: dict[str, Any]) -> Tensor:
    """(B,): some query of the sentence sees nothing, whose softmax is NaN in the reference."""
    length, batch = inputs["input"].shape[:2]
    if not stack.attends:
        return torch.zeros(batch, dtype=torch.bool)
    parts = []
    memory = inputs["memory"][0] if inputs["memory"] is not None else None
    for part, pad in ((memory, inputs["memory_mask_pad"]), (inputs["input"], inputs["mask_pad"])):
        if part is not None:
            parts.append(torch.zeros(part.shape[:2]).bool() if pad is None else pad.bool())
    hidden = torch.cat(parts).t().unsqueeze(1).expand(-1, length, -1)  # (B, L, S + L)
    if inputs["attn_mask"] is not None:
        hidden = hidden | inputs["attn_mask"].isneginf()
    return hidden.all(-1).any(-1)


def _put_norm_bias(layer: Any, h: Tensor, pad: Tensor) -> Tensor:
    if layer.post_norm is None:
        return h
    return torch.where(pad.unsqueeze(-1), layer.post_norm.bias, h)
