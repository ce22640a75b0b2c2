"""Whatever the sizes, types, strides, masks, options and states: what the plain loop gives.

`make test` tries some hundred cases, always the same; `make fuzz` 10,000 new ones.
"""


import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_attention import definition
from test_language_model import build as build_lm
from test_language_model import in_segments, whole
from test_promises import BEHIND
from test_recurrence import convert, run
from test_search import compare, random_sources, strong_model
from test_translation import EOS, batch, build, sentences

from fairseq_sru.modules import SRU, SRUpp
from fairseq_sru.ops import (
    attention,
    attention_mask,
    dropout,
    linear,
    recurrence,
    recurrence_ref,
    recurrence_tanh,
    step_attention,
)
from fairseq_sru.ops.attention import additive
from fairseq_sru.ops.extension import COMPILED
from fairseq_sru.ops.padding import zero_padding
from fairseq_sru.state import StreamState
from fairseq_sru.tasks.streams import Streams, Text

pytestmark = pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")

#: relative to the largest number of a tensor; sums of rounded numbers err by several units
UNITS = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 3e-2}
seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float64, torch.float32, torch.bfloat16])
LAYOUTS = {
    "dense": lambda t: t,
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "every other": lambda t: torch.stack([t, -t], -1).flatten(-2)[..., ::2],
    "a part": lambda t: F.pad(t, (1, 2))[..., 1:-2],
}
layouts = st.sampled_from(sorted(LAYOUTS))


class Draw:
    """Random tensors of a seed that hypothesis chose."""

    def __init__(self, seed, dtype=torch.float64):
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype

    def __call__(self, *shape, dtype=None):
        numbers = torch.randn(*shape, generator=self.generator, dtype=torch.float64)
        return numbers.to(dtype or self.dtype)

    def mask(self, *shape, share=0.5):
        return torch.rand(*shape, generator=self.generator) < share


def near(actual, expected, dtype, name=""):
    """To so many units of the largest number that is expected."""
    assert actual.shape == expected.shape, name
    largest = max(1.0, expected.abs().max().item() if expected.numel() else 0.0)
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=0, atol=UNITS[dtype] * largest,
        msg=lambda text: f"{name} {text}")


def tanh_ref(u, x, weight_c, bias, c0=None, pad=None, mask_c=None, scale=1.0, bidirectional=False):
    """recurrence_tanh as a loop in one direction after the other."""
    if bidirectional:
        ends = []
        for i, flip in (0, False), (1, True):
            turn = (lambda t: t.flip(0)) if flip else (lambda t: t)
            half = [None if t is None else t.chunk(2, -1)[i] for t in (u, x, weight_c, bias, c0)]
            u_half, x_half = turn(half[0]), None if x is None else turn(half[1])
            h, c = tanh_ref(u_half, x_half, *half[2:], None if pad is None else turn(pad),
                            None if mask_c is None else mask_c.chunk(2, -1)[i], scale)
            ends.append((turn(h), c))
        return tuple(torch.cat(pair, -1) for pair in zip(*ends))
    c = u.new_zeros(u.size(1), u.size(3)) if c0 is None else c0
    v = torch.zeros_like(bias) if weight_c is None else weight_c
    u, h = zero_padding(u, pad), []
    for t in range(len(u)):
        f, r = (torch.sigmoid(u[t, :, i] + v[i] * c + bias[i]) for i in (0, 1))
        new = f * c + (1 - f) * u[t, :, 2]
        s = u[t, :, 3] if u.size(2) == 4 else 0 if x is None else scale * zero_padding(x, pad)[t]
        out = s + r * (new.tanh() - s) * (1 if mask_c is None else mask_c)
        padded = torch.zeros(u.size(1), 1, dtype=torch.bool) if pad is None else pad[t, :, None]
        c = torch.where(padded, c, new)
        h.append(out.masked_fill(padded, 0))
    return (torch.stack(h) if h else u[:, :, 0]), c


@given(data=st.data(), seed=seeds, dtype=dtypes, layout=layouts, length=st.integers(1, 12),
       rows=st.integers(0, 5), width=st.integers(1, 70), tanh=st.booleans(),
       highway=st.sampled_from(["x", "block", "none"]), bidirectional=st.booleans(),
       scale=st.sampled_from([1.0, -0.7, 1.3, 0.0]))
def test_the_recurrence(
    data, seed, dtype, layout, length, rows, width, tanh, highway, bidirectional, scale
):
    """Outputs, states and all gradients; what lies behind padding is never read."""
    draw, flip = Draw(seed, dtype), st.booleans()
    state = dtype if dtype == torch.float64 else torch.float32
    size = 2 * width if bidirectional else width
    pad = draw.mask(length, rows, share=data.draw(st.floats(0, 1))) if data.draw(flip) else None
    inputs = dict(
        u=3 * draw(length, rows, 4 if highway == "block" else 3, size),
        x=draw(length, rows, size) if highway == "x" else None,
        weight_c=draw(2, size, dtype=state) if data.draw(flip) else None,
        bias=draw(2, size, dtype=state),
        c0=draw(rows, size, dtype=state) if data.draw(flip) else None,
        pad=pad,
        mask_c=draw.mask(rows, size).to(state) / 0.5 if data.draw(flip) else None,
        scale=scale, bidirectional=bidirectional)
    exact = convert(inputs, torch.float64)
    if pad is not None:
        for name in "u", "x":
            if inputs[name] is not None:
                inputs[name][pad] = data.draw(st.sampled_from(BEHIND)).to(dtype)
    for given_tensors, arrange in (inputs, LAYOUTS[layout]), (exact, LAYOUTS["dense"]):
        for name, tensor in given_tensors.items():
            if torch.is_tensor(tensor) and tensor.is_floating_point():
                given_tensors[name] = arrange(tensor).detach().requires_grad_()
    actual = run(recurrence_tanh if tanh else recurrence, inputs)
    expected = run(tanh_ref if tanh else recurrence_ref, exact)
    for name in expected:
        if expected[name] is None or actual[name] is None:
            assert expected[name] is actual[name] or not any(
                t.any() for t in (actual[name], expected[name]) if t is not None)
        else:
            near(actual[name], expected[name], dtype, name)


@given(seed=seeds, dtype=dtypes, layout=layouts, rows=st.lists(st.integers(0, 4), max_size=2),
       inside=st.integers(1, 70), outside=st.integers(1, 70), bias=st.booleans(),
       grad=st.booleans())
def test_linear_maps(seed, dtype, layout, rows, inside, outside, bias, grad):
    """Of a few rows or of many, with gradients or without."""
    draw = Draw(seed, dtype)
    inputs = [LAYOUTS[layout](draw(*rows, inside)), draw(outside, inside)]
    inputs += [draw(outside)] if bias else []
    exact = [t.double().requires_grad_(grad) for t in inputs]
    inputs = [t.requires_grad_(grad) for t in inputs]
    actual, expected = linear(*inputs), F.linear(*exact)
    near(actual, expected, dtype)
    if grad:
        weight = draw(*expected.shape)
        for mine, theirs in zip(torch.autograd.grad(actual, inputs, weight),
                                torch.autograd.grad(expected, exact, weight.double())):
            near(mine, theirs, dtype)


@given(seed=seeds, dtype=dtypes, layout=layouts, p=st.floats(0.01, 0.99),
       shape=st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_dropout_keeps_or_drops(seed, dtype, layout, p, shape):
    """Each number by itself, the same in the backward pass and with the same seed."""
    x = LAYOUTS[layout](Draw(seed, dtype)(*shape).abs() + 1).requires_grad_()
    torch.manual_seed(seed)
    y = dropout(x, p)
    torch.manual_seed(seed)
    assert torch.equal(dropout(x, p), y)
    kept = y != 0
    near(y, kept * x.double() / (1 - p), dtype)
    (grad,) = torch.autograd.grad(y.sum(), x)
    near(grad, kept.double() / (1 - p), dtype)


@given(data=st.data(), seed=seeds, dtype=dtypes, length=st.integers(1, 6), more=st.integers(0, 6),
       rows=st.integers(1, 4), heads=st.integers(1, 3), head=st.integers(1, 9),
       need_weights=st.booleans(), floating=st.booleans())
def test_attention(data, seed, dtype, length, more, rows, heads, head, need_weights, floating):
    """Against loops over sentences, heads and queries; who sees nothing gets zeros."""
    draw, flip = Draw(seed, dtype), st.booleans()
    q = draw(length, rows, heads * head)
    k, v = draw(2, more + length, rows, heads * head)
    share = data.draw(st.floats(0, 1))
    pad = draw.mask(length, rows, share=share) if data.draw(flip) else None
    context_pad = draw.mask(more, rows, share=share) if data.draw(flip) else None
    causal = data.draw(flip)
    window = data.draw(st.none() | st.integers(0, 7)) if causal else None
    mask = attention_mask(length, pad, more, context_pad, causal, window)
    allowed = seen_by_each(length, more, rows, pad, context_pad, causal, window)
    if floating and mask is not None:
        mask = additive(mask, dtype)
    inputs = [t.requires_grad_() for t in (q, k, v)]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    actual, weights = attention(*inputs, mask, heads, need_weights=need_weights)
    expected = definition(*exact, allowed, heads)
    near(actual, expected, dtype)
    grad = draw(*expected.shape)
    for mine, theirs in zip(
            torch.autograd.grad(actual, inputs, grad),
            torch.autograd.grad(expected, exact, grad.double())):
        near(mine, theirs, dtype)
    if need_weights:
        assert not weights.masked_select(~allowed.unsqueeze(1)).any()


def seen_by_each(length, more, rows, pad, context_pad, causal, window):
    """(B, L, S + L) bool, from the words of attention_mask's documentation."""
    allowed = torch.ones(rows, length, more + length, dtype=torch.bool)
    for b in range(rows):
        for i in range(length):
            for j in range(more + length):
                behind = more + i - j
                padded = context_pad if j < more else pad
                allowed[b, i, j] = not (
                    causal and behind < 0 or window is not None and behind > window
                    or padded is not None and padded[j if j < more else j - more, b])
    return allowed


@given(seed=seeds, dtype=dtypes, count=st.integers(1, 3), beam=st.integers(1, 4),
       slots=st.integers(1, 20), heads=st.integers(1, 3), head=st.integers(1, 20),
       share=st.floats(0, 1), grad=st.booleans())
def test_a_step_of_attention(seed, dtype, count, beam, slots, heads, head, share, grad):
    """Every row sees at least one slot, as in decoding it sees itself."""
    draw = Draw(seed, dtype)
    q, cache = draw(1, count * beam, heads * head), draw(count, slots, 2 * heads * head)
    allowed = draw.mask(count, beam, slots, share=share)
    allowed[..., -1] = True
    alpha = draw(1).requires_grad_(grad)
    actual, _ = step_attention(q, cache, additive(allowed[:, None], dtype), alpha, heads)
    k, v = cache.double().transpose(0, 1).chunk(2, -1)
    seen = definition(
        q.double().view(count, beam, -1).transpose(0, 1), k, v, allowed, heads)
    expected = q.double() + alpha.double() * seen.transpose(0, 1).reshape(q.shape)
    near(actual, expected.detach(), dtype)


@st.composite
def stacks(draw):
    """A stack with random parameters, in float64."""
    options = dict(
        layer_norm=draw(st.sampled_from([None, "pre", "post"])),
        highway=draw(st.booleans()), rescale=draw(st.booleans()), weight_c=draw(st.booleans()),
        project_input=draw(st.booleans()), highway_bias=draw(st.sampled_from([0.0, -2.0])))
    layers = draw(st.integers(1, 3))
    inside, hidden = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    torch.manual_seed(draw(seeds))
    if draw(st.booleans()):
        stack = SRU(inside, hidden, layers, proj_size=draw(st.none() | st.integers(1, 5)),
                    tanh=draw(st.booleans()), **options)
    else:
        heads = draw(st.integers(1, 3))
        stack = SRUpp(inside, hidden, heads * draw(st.integers(1, 4)), layers, num_heads=heads,
                      alpha_init=1.0, attention=draw(st.sampled_from(["all", "none", "last:1"])),
                      attention_norm=draw(st.booleans()), **options)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return stack.double().eval()


def layer_loop(layer, x, c0, pad, allowed):
    """A layer by its equations: attention query by query, the recurrence step by step."""
    x = zero_padding(x, pad)
    z = x if layer.pre_norm is None else layer.pre_norm(x)
    if not hasattr(layer, "q_proj"):
        z = z if layer.in_proj is None else z @ layer.in_proj.weight.t()
    else:
        z = z @ layer.q_proj.weight.t()
        if layer.attends:
            k, v = (z @ layer.kv_proj.weight.t()).chunk(2, -1)
            z = z + layer.alpha * definition(z, k, v, allowed, layer.num_heads)
        z = z if layer.attn_norm is None else layer.attn_norm(z)
    parts = layer.recurrence
    u = (z @ layer.out_proj.weight.t()).unflatten(-1, (parts.num_blocks, parts.output_size))
    x = x if parts.highway and parts.num_blocks == 3 else None
    loop = tanh_ref if parts.tanh else recurrence_ref
    h, c = loop(u, x, parts.weight_c, parts.bias, c0, pad, None, parts.scale)
    return (h if layer.post_norm is None else zero_padding(layer.post_norm(h), pad)), c


def stack_loop(stack, x, c0, pad, allowed):
    if stack.input_proj is not None:
        x = zero_padding(x, pad) @ stack.input_proj.weight.t()
    cells = []
    for layer, state in zip(stack.layers, c0):
        x, c = layer_loop(layer, x, state, pad, allowed)
        cells.append(c)
    return x, torch.stack(cells)


def read(stack, x, **options):
    """h and c of either kind of stack; SRU's own forward has fewer options."""
    if not stack.attends:
        for name in "causal", "window", "context", "context_pad":
            options.pop(name, None)
    out = stack.read(x, **options)
    return out.h, out.c, out.inputs


@given(stack=stacks(), seed=seeds, rows=st.integers(1, 3), length=st.integers(1, 7),
       share=st.none() | st.floats(0, 1), causal=st.booleans(), data=st.data())
def test_stacks(stack, seed, rows, length, share, causal, data):
    draw = Draw(seed)
    x, c0 = draw(length, rows, stack.input_size), draw(len(stack.layers), rows, stack.output_size)
    pad = None if share is None else draw.mask(length, rows, share=share)
    window = data.draw(st.none() | st.integers(0, 8)) if causal else None
    allowed = seen_by_each(length, 0, rows, pad, None, causal, window)
    h, c, _ = read(stack, x, c0=c0, pad=pad, causal=causal, window=window)
    expected = stack_loop(stack, x, c0, pad, allowed)
    near(h, expected[0], torch.float64)
    near(c, expected[1], torch.float64)


@given(stack=stacks(), seed=seeds, beam=st.integers(1, 3), count=st.integers(1, 3),
       source=st.integers(0, 4), window=st.none() | st.integers(0, 6), steps=st.integers(1, 8),
       share=st.floats(0, 1))
def test_steps_of_hypotheses_that_change_places(
    stack, seed, beam, count, source, window, steps, share
):
    """Step by step, rows reordered in between, is what the whole past of each row gives."""
    draw = Draw(seed)
    sizes = {layer.q_proj.in_features for layer in stack.layers if layer.attends}
    context = draw(source, count, *sizes) if len(sizes) == 1 and source else None
    context_pad = None if context is None else draw.mask(source, count, share=share)
    sentence = torch.arange(count).repeat_interleave(beam)
    state = stack.start(count * beam, context, context_pad, window=window)
    past = draw(0, count * beam, stack.input_size)
    for step in range(steps):
        past = torch.cat([past, draw(1, len(sentence), stack.input_size)])
        h, _ = stack.step(past[-1:], state)
        expected, _, _ = read(
            stack, past, causal=True, window=window,
            context=None if context is None else context[:, sentence],
            context_pad=None if context is None else context_pad[:, sentence])
        near(h[0], expected[-1], torch.float64)
        if step % 2:
            order = torch.randint(len(sentence), (len(sentence),), generator=draw.generator)
        else:  # as in beam search: within the sentence
            order = torch.arange(len(sentence)) // state.beam * state.beam + torch.randint(
                state.beam, (len(sentence),), generator=draw.generator)
        state.reorder(order)
        sentence, past = sentence[order], past[:, order]


@given(stack=stacks(), seed=seeds, rows=st.integers(1, 3), context=st.integers(0, 6),
       cuts=st.lists(st.integers(1, 4), min_size=1, max_size=4), share=st.none() | st.floats(0, 1))
def test_segments_of_streams(stack, seed, rows, context, cuts, share):
    """Segments that hand on their state are one long text, seen as far as the memory reaches."""
    draw, length = Draw(seed), sum(cuts)
    x = draw(length, rows, stack.input_size)
    pad = None if share is None else draw.mask(length, rows, share=share)
    allowed = seen_by_each(length, 0, rows, pad, None, True, None)
    state, h, start = None, [], 0
    for cut in cuts:
        piece = slice(start, start + cut)
        allowed[:, piece, : max(0, start - context)] = False
        here = None if pad is None else pad[piece]
        before = {} if state is None else dict(
            c0=state.cells, context=state.inputs, context_pad=state.pad)
        out, c, inputs = read(stack, x[piece], pad=here, causal=True, **before)
        attended = [i if layer.attends else None for i, layer in zip(inputs, stack.layers)]
        state = StreamState.after(state, c, attended, here, context)
        h.append(out)
        start += cut
    c0 = torch.zeros(len(stack.layers), rows, stack.output_size, dtype=torch.float64)
    expected = stack_loop(stack, x, c0, pad, allowed)
    near(torch.cat(h), expected[0], torch.float64)
    near(state.cells, expected[1], torch.float64)


@given(lines=st.lists(st.lists(st.integers(4, 99), max_size=6), min_size=1, max_size=20),
       streams=st.integers(1, 4), segment=st.integers(1, 5), shards=st.integers(1, 3))
def test_every_token_is_the_target_once(lines, streams, segment, shards):
    """In order, behind the token before it, whatever lines, streams, segments and processes."""
    words = [word for line in lines for word in line]
    if len(words) < streams * shards:
        return
    text = Text([torch.tensor(line, dtype=torch.long) for line in lines],
                [len(line) for line in lines], True)
    targets = []
    for shard in range(shards):
        batches = Streams(text, streams, segment, 1, EOS, shards, shard)
        of_streams = [([], []) for _ in range(streams)]
        for i in range(len(batches)):
            made = batches.collater([batches[i]])
            real = made["target"] != 1
            assert made["ntokens"] == real.sum() and made["net_input"]["padded"] == (not real.all())
            for row, (source, target) in enumerate(of_streams):
                source += made["net_input"]["src_tokens"][row][real[row]].tolist()
                target += made["target"][row][real[row]].tolist()
        for source, target in of_streams:
            assert source == [EOS, *target[:-1]]
            targets += target
    assert targets == words


@given(data=st.data(), seed=st.integers(0, 999), context=st.integers(0, 9),
       cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_language_models_on_segments(data, seed, context, cuts):
    options = dict(
        attention=data.draw(st.sampled_from(["all", "none", "1", "2"])),
        layer_norm=data.draw(st.sampled_from(["none", "pre", "post"])),
        num_heads=data.draw(st.sampled_from([1, 2])), alpha_init=1.0)
    model = build_lm(**options)
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(4, 40, (2, sum(cuts)), generator=generator)
    near(in_segments(model, text, context, cuts), whole(model, text, context), torch.float64)


@given(data=st.data(), seed=st.integers(0, 999), beam=st.integers(1, 3), steps=st.integers(1, 6))
def test_decoders(data, seed, beam, steps):
    """Translation token by token, hypotheses reordered, is what reading them whole gives."""
    model = build(**dict(
        decoder_attention=data.draw(st.sampled_from(["all", "none", "every:2"])),
        encoder_bidirectional=data.draw(st.booleans()),
        layer_norm=data.draw(st.sampled_from(["none", "pre", "post"])), alpha_init=1.0))
    generator = torch.Generator().manual_seed(seed)
    rows = sentences(3, 1, 7, 30, seed)
    encoded = model.encoder(batch(rows, left=data.draw(st.booleans()), extra=data.draw(
        st.integers(0, 2))))
    encoded = model.encoder.reorder_encoder_out(encoded, torch.arange(3).repeat_interleave(beam))
    past, state = torch.full((3 * beam, 1), EOS), {}
    for _ in range(steps):
        scores, _ = model.decoder(past, encoder_out=encoded, incremental_state=state)
        whole_scores, _ = model.decoder(past, encoder_out=encoded)
        near(scores, whole_scores[:, -1:], torch.float64)
        order = torch.cat([
            s * beam + torch.randint(beam, (beam,), generator=generator) for s in range(3)])
        model.decoder.reorder_incremental_state_scripting(state, order)
        encoded = model.encoder.reorder_encoder_out(encoded, order)
        past = torch.cat(
            [past[order], torch.randint(4, 25, (len(past), 1), generator=generator)], 1)


@given(st.data())
def test_the_search(data):
    """fairseq's SequenceGenerator on the same model finds the same."""
    draw = data.draw
    heads = draw(st.integers(1, 3))
    options = dict(
        embed_dim=draw(st.integers(2, 24)),
        hidden_size=2 * draw(st.integers(2, 20)),
        proj_size=heads * draw(st.integers(1, 9)),
        num_heads=heads,
        encoder_layers=1,
        decoder_layers=draw(st.integers(1, 3)),
        decoder_attention=draw(st.sampled_from(["all", "none", "every:2", "last:1"])),
        layer_norm=draw(st.sampled_from(["none", "pre", "post"])),
        no_attention_norm=draw(st.booleans()),
        share_decoder_input_output_embed=draw(st.booleans()),
        rescale=draw(st.booleans()),
        target=draw(st.integers(12, 40)),
    )
    model = strong_model(draw(st.integers(0, 1000)), **options)
    count = draw(st.integers(1, 5))
    vocabulary = len(model.decoder.dictionary)
    prefixes = [
        torch.tensor(draw(st.lists(st.integers(4, vocabulary - 1), max_size=3)), dtype=torch.long)
        for _ in range(count)]
    compare(
        model,
        random_sources(count, seed=draw(st.integers(0, 1000))),
        prefixes,
        max_rows=draw(st.integers(1, 40)),
        ties=True,
        beam=draw(st.integers(1, 8)),
        lenpen=draw(st.sampled_from([0.0, 0.6, 1.0, 1.7])),
        unkpen=draw(st.sampled_from([0.0, 1.0])),
        min_len=draw(st.integers(0, 4)),
        max_len_a=draw(st.sampled_from([0.0, 1.2])),
        max_len_b=draw(st.integers(4, 25)),
        temperature=draw(st.sampled_from([1.0, 0.8])),
        unnormalized=draw(st.booleans()),
        no_repeat_ngram_size=draw(st.sampled_from([0, 2, 3])) if not any(
            len(prefix) for prefix in prefixes) else 0,
    )
