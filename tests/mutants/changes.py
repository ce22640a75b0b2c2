"""Mistakes that the tests must find: each changes one place and names the tests that notice."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    path: str
    old: str  # occurs once
    new: str
    tests: str  # files of tests/, or files and names, separated by spaces

    def sources(self) -> list[str]:
        """What has to be compiled, by those tests."""
        return HEADERS.get(self.path, [self.path] if self.path.endswith(".cpp") else [])


HEADERS = {
    "csrc/recurrence.h": ["csrc/recurrence_cpu.cpp"],
    "csrc/attend.h": ["csrc/step_attention.cpp"],
}

RECURRENCE, SEARCH = "test_recurrence.py", "test_search.py"
MUTANTS = [
    # the recurrence's equations
    Mutant("csrc/recurrence.h", "(u2 - f * u2)", "(u2 + f * u2)", RECURRENCE),
    Mutant("csrc/recurrence.h", "(c - s) * (mask * r);", "(c - s) * r;", RECURRENCE),
    Mutant("csrc/recurrence.h", "output(r, mask, s, c)}", "output(f, mask, s, c)}", RECURRENCE),
    Mutant("csrc/recurrence.h", "grad_h - grad_h * (mask * r)", "grad_h - grad_h * r", RECURRENCE),
    Mutant("csrc/recurrence.h", "+ grad_u0 * gates.v_f + grad_u1 * gates.v_r,",
           "+ grad_u0 * gates.v_r + grad_u1 * gates.v_f,", RECURRENCE),
    Mutant("csrc/recurrence.h", "(prev - u2) * (f * (1 - f))", "(u2 - prev) * (f * (1 - f))",
           RECURRENCE),
    Mutant("csrc/recurrence.h", "x = x < -87.0f ? -87.0f : x;", "", RECURRENCE),
    Mutant("csrc/recurrence.h", "reverse(channel) ? length - 1 - step : step", "step", RECURRENCE),
    # and the sweep through time
    Mutant("csrc/recurrence_cpu.cpp",
           "const S* prev = step == 0 ? column.c0 : column.row(a, a.c, step - 1);",
           "const S* prev = step == 0 ? column.c0 : column.row(a, a.c, step);", RECURRENCE),
    Mutant("csrc/recurrence_cpu.cpp", "in.weight_c + in.width + channel", "in.weight_c + channel",
           RECURRENCE),
    Mutant("csrc/recurrence_cpu.cpp", "std::copy(prev, prev + n, c);", "std::fill(c, c + n, S(0));",
           RECURRENCE),
    Mutant("csrc/recurrence_cpu.cpp", "store(grad_s + i, scale * grad.s);",
           "store(grad_s + i, grad.s);", RECURRENCE),
    Mutant("csrc/recurrence_cpu.cpp", "sums.b_r[i] += grad.u1;", "sums.b_r[i] = grad.u1;",
           RECURRENCE),
    # small kernels
    Mutant("csrc/dropout.cpp", "mix(first + i + low)", "mix(i + low)", "test_dropout.py"),
    Mutant("csrc/dropout.cpp", "random < threshold", "random > threshold", "test_dropout.py"),
    Mutant("csrc/few_rows.cpp", "for (int64_t i = k; i < a.in; ++i)",
           "for (int64_t i = k; i + 1 < a.in; ++i)", "test_few_rows.py"),
    Mutant("csrc/few_rows.cpp", "load(a.bias + first + n)", "load(a.bias + n)",
           "test_few_rows.py"),
    Mutant("csrc/step_attention.cpp", "load(mask + slot) >= 0", "true", "test_step_attention.py"),
    Mutant("csrc/step_attention.cpp", "a.keys_values + row / a.beam * a.sentence_stride",
           "a.keys_values + row % a.sentences * a.sentence_stride", "test_step_attention.py"),
    Mutant("csrc/attend.h", "S(1) / std::sqrt(S(size))", "S(1) / S(size)",
           "test_step_attention.py"),
    Mutant("csrc/attend.h", "const T* values = keys + offset;", "const T* values = keys;",
           "test_step_attention.py"),
    Mutant("csrc/attend.h", "i % 2 * kLanes + i % both / 2", "(1 - i % 2) * kLanes + i % both / 2",
           "test_step_attention.py"),
    # the decoding engine
    Mutant("csrc/layer.cpp", "cells_before + parent * kBlock", "cells_before + r * kBlock", SEARCH),
    Mutant("csrc/layer.cpp", "attention.see_if(true, row.slot);", "",
           "test_engine.py " + SEARCH),
    Mutant("csrc/layer.cpp", "1.0f, u0[j], u1[j], u2[j]", "1.0f, u1[j], u0[j], u2[j]",
           "test_engine.py " + SEARCH),
    Mutant("csrc/layer.cpp", "layer.blocks == 4 ? 1 : layer.scale;", "1;", "test_engine.py"),
    Mutant("csrc/decoder.cpp", "before[n].size()) > decoder->window()",
           "before[n].size()) > decoder->window() + 1", "test_engine.py"),
    Mutant("csrc/decoder.cpp", "if (output_bias_.defined())", "if (false)", "test_engine.py"),
    Mutant("csrc/packed.cpp", "^ (shifted ? 0x80 : 0)", "", "test_packed.py"),
    Mutant("csrc/packed.cpp", "std::min(kRowsTogether, rows - row);",
           "std::min(kRowsTogether, rows - row - 1);", "test_packed.py"),
    # the search
    Mutant("csrc/search.cpp", "before.size()) > window_", "before.size()) > window_ + 1", SEARCH),
    Mutant("csrc/search.cpp", "step_ < options_.min_length", "step_ <= options_.min_length",
           SEARCH),
    Mutant("csrc/search.cpp", "candidate.score - total + before", "candidate.score - total",
           SEARCH),
    Mutant("csrc/search.cpp", "int64_t(i) < options_.beam && ", "", SEARCH),
    Mutant("csrc/search.cpp", "logits[first[n - 1]]", "logits[first[n - 2]]", SEARCH),
    Mutant("csrc/search.cpp", "add(*parent, candidate), parent->row,",
           "add(*parent, candidate), active_[0].row,", SEARCH),
    Mutant("csrc/search.cpp", "std::pow(double(path.size()),", "std::pow(double(path.size() + 1),",
           SEARCH),
    Mutant("csrc/search.cpp", "hypothesis.alignment.end(), before.alignment.begin(), "
           "before.alignment.end()", "hypothesis.alignment.end(), own.alignment.begin(), "
           "own.alignment.end()", SEARCH),
    Mutant("csrc/search.cpp", "live.push_back(nodes_[active.node].slot);", "", SEARCH),
    Mutant("csrc/search.cpp", "{sentence, sample, step}", "{sentence, sample}", SEARCH),
    Mutant("csrc/candidates.cpp", "std::min(kTogether, size - first)",
           "std::min(kTogether, size - first - 1)", SEARCH),
    Mutant("csrc/search_op.cpp", "prefix += forced;", "", SEARCH),
    # operators in Python
    Mutant("fairseq_sru/ops/reference.py", "u_t[1] + v[1] * c + bias[1]",
           "u_t[1] + v[1] * c + bias[0]", RECURRENCE),
    Mutant("fairseq_sru/ops/recurrence.py", "if mask_c is None else mask_c.to(dtype).contiguous()",
           "", RECURRENCE),
    Mutant("fairseq_sru/ops/recurrence_autograd.py", "None, grads[5], None, None, None)",
           "None, None, None, None, None)", RECURRENCE),
    Mutant("fairseq_sru/ops/tanh.py", "return before[:-1]", "return before[1:]", "test_tanh.py"),
    Mutant("fairseq_sru/ops/tanh.py", "forget.masked_fill(pad.unsqueeze(-1), math.inf)", "forget",
           "test_tanh.py test_promises.py"),
    Mutant("fairseq_sru/ops/padding.py", "x if pad is None else x.masked_fill(", "x if True else (",
           "test_promises.py"),
    Mutant("fairseq_sru/ops/attention.py", "past.tril(context_length)",
           "past.tril(context_length + 1)", "test_attention.py"),
    Mutant("fairseq_sru/ops/attention.py", "past.triu(context_length - window)",
           "past.triu(context_length - window + 1)", "test_attention.py"),
    Mutant("fairseq_sru/ops/attention.py", "else past & real", "else past", "test_attention.py"),
    Mutant("fairseq_sru/ops/attention.py", "weights = weights.masked_fill(blind, 0)", "pass",
           "test_ranges.py test_attention.py"),
    Mutant("fairseq_sru/ops/dropout.py", "fairseq_sru.dropout(grad, ctx.p, ctx.seed)",
           "fairseq_sru.dropout(grad, ctx.p, ctx.seed + 1)", "test_dropout.py"),
    Mutant("fairseq_sru/ops/linear.py", "_product(grad, weight.t())", "_product(grad, -weight.t())",
           "test_linear.py"),
    Mutant("fairseq_sru/ops/step_attention.py", "dropout == 0.0 and not need_weights",
           "not need_weights", "test_step_attention.py test_retained_dropout.py"),
    Mutant("fairseq_sru/ops/varlen.py", "offsets[1::2] = start + lengths", "offsets[1::2] = start",
           "test_varlen.py"),
    # modules, states, streams, models
    Mutant("fairseq_sru/modules/stack.py", "None if c0 is None else c0[i], pad",
           "None if c0 is None else c0[0], pad", "test_modules.py"),
    Mutant("fairseq_sru/modules/srupp.py", "k, v = keys_values", "v, k = keys_values",
           "test_modules.py"),
    Mutant("fairseq_sru/modules/srupp.py", "torch.cat([context, own])",
           "torch.cat([own, context])", "test_language_model.py"),
    Mutant("fairseq_sru/modules/srupp.py", "torch.cat([self.query(context), q])",
           "torch.cat([self.q_proj(context), q])", "test_modules.py"),
    Mutant("fairseq_sru/modules/pooling.py", "_at(backwards, first)", "_at(backwards, last)",
           "test_classifier.py test_promises.py"),
    Mutant("fairseq_sru/state.py", "if torch.is_grad_enabled() and (", "if False and (",
           "test_modules.py"),
    Mutant("fairseq_sru/ops/attention.py", "(mask <= _lowest(mask.dtype)).all(",
           "(mask <= _lowest(mask.dtype)).any(",
           "test_ranges.py::test_what_sees_nothing_gets_zeros"),
    Mutant("fairseq_sru/state.py", "x if x is None else x.index_select(0, new_order)", "x",
           "test_modules.py"),
    Mutant("fairseq_sru/state.py", "cache.select(sentences)", "pass", "test_modules.py"),
    Mutant("fairseq_sru/state.py", "self._mask.select(new_order)", "pass", "test_modules.py"),
    Mutant("fairseq_sru/state.py", "new[max(0, len(new) - context) :]",
           "new[max(0, len(new) - context - 1) :]", "test_language_model.py"),
    Mutant("fairseq_sru/state.py", "made(self.pad), self.projected)", "made(self.pad))",
           "test_language_model.py"),
    Mutant("fairseq_sru/state.py", "self._next._before = self._after()",
           "self._next._before = dict(self._before)", "test_language_model.py"),
    Mutant("fairseq_sru/tasks/streams.py", "max(start, here - 1)", "max(start, here)",
           "test_properties.py::test_every_token_is_the_target_once"),
    Mutant("fairseq_sru/tasks/streams.py", "first = shard * streams", "first = 0",
           "test_properties.py::test_every_token_is_the_target_once"),
    Mutant("fairseq_sru/models/decoder.py",
           "source(encoder_out if shared else expand(encoder_out))",
           "source(encoder_out)", "test_translation.py"),
    Mutant("fairseq_sru/models/encoder.py", "rows[0].index_select(0, new_order) if rows else",
           "rows[0] if rows else", "test_translation.py"),
    # training, checkpoints
    Mutant("fairseq_sru/criterions/consistency.py", "both_ways / 4", "both_ways / 2",
           "test_consistency.py"),
    Mutant("fairseq_sru/tasks/dynamic_evaluation.py", "value=-lr)", "value=lr)",
           "test_dynamic_evaluation.py"),
    Mutant("fairseq_sru/convert/layout.py",
           "torch.tensor([1, 2, 0, 3]", "torch.tensor([2, 1, 0, 3]", "test_convert.py"),
    Mutant("fairseq_sru/optim/radam.py",
           '["weight_decay"] / rectifier', '["weight_decay"] * rectifier',
           "test_optim.py"),
]
