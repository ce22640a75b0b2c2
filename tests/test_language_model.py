"""The language model: memory, row order, incremental decoding, batches of sentences, gradients."""

import sys
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary, TruncatedDictionary

from fairseq_sru.errors import UsageError
from fairseq_sru.inference import read_model
from fairseq_sru.models.language_model import SRULanguageModel, SRUppLanguageModel
from fairseq_sru.models.lm_config import SRU_PRESETS, SRULMConfig, SRUppLMConfig
from fairseq_sru.models.lm_config import SRUPP_PRESETS as PRESETS
from fairseq_sru.state import StreamMemory, StreamState

PAD, EOS, VOCABULARY = 1, 2, 40


def build(preset="srupp_lm_tiny", **options):
    """A model in float64, for evaluation."""
    words = Dictionary()
    for i in range(VOCABULARY - len(words)):
        words.add_symbol(f"w{i}")
    cfg = SRUppLMConfig(**{**PRESETS[preset], **options})
    torch.manual_seed(0)
    model = SRUppLanguageModel.build_model(cfg, SimpleNamespace(target_dictionary=words))
    return model.double().eval()


VARIANTS = [
    dict(),
    dict(attention="none"),
    dict(attention="2", layer_norm="pre", rescale=True),
    dict(attention="1", layer_norm="post", no_attention_norm=True, num_heads=1),
    dict(embed_dim=None, share_decoder_input_output_embed=True),
    dict(adaptive_cutoff="10,20", tie_adaptive_proj=True),
    dict(adaptive_cutoff="8"),
    dict(project_memory=True),
    dict(project_memory=True, attention="2", layer_norm="pre"),
]


def variant_id(options):
    return "-".join(f"{k}={v}" for k, v in options.items()) or "plain"


def tokens(rows, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, VOCABULARY, (rows, length), generator=generator)


def log_probs(model, output):
    """In float64, where fairseq's own are float32."""
    if model.decoder.adaptive_softmax is not None:
        return model.decoder.adaptive_softmax.get_log_prob(output[0], None)
    return output[0].log_softmax(-1)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


def whole(model, text, context):
    """One long forward under the mask that lets a token see the ``context`` tokens before."""
    memory = StreamMemory(text.size(1), context)
    return log_probs(model, model(text, memory=memory))


def in_segments(model, text, context, lengths):
    memory, scores = StreamMemory(text.size(1), context), []
    for segment in text.split(lengths, 1):
        memory = memory.next()
        scores.append(log_probs(model, model(segment, memory=memory)))
    return torch.cat(scores, 1)


@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
@pytest.mark.parametrize("context", [0, 3, 8, 100])
def test_segments_with_memory_equal_one_long_forward(options, context):
    """Whatever their lengths."""
    model, text = build(**options), tokens(3, 23)
    expected = whole(model, text, context)
    if context == 100:
        close(expected, log_probs(model, model(text)))
    for lengths in (23, 1, 4, [2, 9, 1, 11]):
        close(in_segments(model, text, context, lengths), expected)


def test_a_token_sees_the_context_and_no_more():
    """Attention alone, the cells being zeroed: two layers reach back twice the context."""
    model, text = build(), tokens(1, 16)
    other = text.clone()
    other[:, 5] = 4 + (text[:, 5] - 3) % (VOCABULARY - 4)

    def attention_alone(text):
        memory, scores = StreamMemory(16, 4), []
        for t in range(16):
            memory = memory.next()
            if memory.before is not None:
                memory.before.cells.zero_()
            scores.append(log_probs(model, model(text[:, t : t + 1], memory=memory)))
        return torch.cat(scores, 1)

    changed = (attention_alone(text) - attention_alone(other)).abs().amax((0, 2)) > 1e-12
    assert changed.tolist() == [5 <= t <= 5 + 2 * 4 for t in range(16)]


def test_rows_may_be_permuted():
    model, text = build(), tokens(4, 15)
    order = torch.tensor([2, 0, 3, 1])
    expected = in_segments(model, text, 6, 4)
    close(in_segments(model, text[order], 6, 4), expected[order])


def test_memory_helps_nothing_if_it_is_forgotten():
    """A state that is not carried changes the scores: the tests above can fail."""
    model, text = build(), tokens(2, 12)
    apart = torch.cat([log_probs(model, model(s)) for s in text.split(6, 1)], 1)
    expected = in_segments(model, text, 12, 6)
    close(apart[:, :6], expected[:, :6])
    assert (apart[:, 6:] - expected[:, 6:]).abs().max() > 1e-3


def test_training_sees_all_of_the_segment_before():
    """M to 2M tokens for segments of M, and the memory has no gradients."""
    model, text = build(dropout=0.0), tokens(2, 12)
    model.train()
    memory, scores = StreamMemory(4, 1), []
    for segment in text.split(4, 1):
        memory = memory.next()
        if memory.before is not None:
            state = memory.before
            assert not state.cells.requires_grad
            assert [x.shape for x in state.inputs] == [(4, 2, 32)] * 2
            assert not any(x.requires_grad for x in state.inputs)
        scores.append(model(segment, memory=memory)[0])
    model.zero_grad()
    scores[1].sum().backward()  # would fail if it led into the first segment, freed or not
    scores[0].sum().backward()
    model.eval()
    close(scores[1], model(text[:, :8])[0][:, 4:])
    longer = model(text)[0][:, 8:]
    assert (scores[2] - longer).abs().max() > 1e-6


def test_layers_that_do_not_attend_keep_no_inputs():
    model, memory = build(attention="2"), StreamMemory(4, 4)
    model(tokens(2, 4), memory=memory)
    assert memory.after.inputs[0] is None and memory.after.inputs[1].shape == (4, 2, 32)


@pytest.mark.parametrize("context", [0, 3, 100])
def test_projected_memory_scores_the_same(context):
    """Its keys and values are those that the layer inputs would give."""
    model, projected, text = build(), build(project_memory=True), tokens(3, 23)
    text[1, 9:15] = PAD
    expected = in_segments(model, text, context, 5)
    close(in_segments(projected, text, context, 5), expected)


def test_projected_memory_trains_as_if_it_were_given():
    """Gradients are those of keys and values made beforehand, by the parameters of that time; a
    memory of layer inputs has others."""
    first, second = tokens(2, 12).split(6, 1)

    def read_first(**options):
        """The model after an update, and the memory from before it."""
        model, memory = build(dropout=0.0, **options).train(), StreamMemory(6, 6).next()
        model(first, memory=memory)
        state = memory.after
        made = [layer.start(2, x).values.transpose(0, 1).detach()
                for layer, x in zip(model.decoder.stack.layers, state.inputs)
                if not state.projected]
        with torch.no_grad():
            torch._foreach_mul_(list(model.parameters()), 1.1)
        return model, memory, made

    def gradients(model, scores):
        scores.log_softmax(-1)[..., 5].sum().backward()
        return {name: p.grad for name, p in model.named_parameters()}

    model, memory, _ = read_first(project_memory=True)
    projected = gradients(model, model(second, memory=memory.next())[0])
    model, memory, made = read_first()
    inputs = gradients(model, model(second, memory=memory.next())[0])
    model, memory, made = read_first()
    decoder = model.decoder
    h = decoder.stack.read(decoder.embed_tokens(second.t()), c0=memory.after.cells, context=made,
                           causal=True, projected=True).h
    expected = gradients(model, decoder.output_layer(decoder.feature_proj(h.transpose(0, 1))))
    assert projected.keys() == expected.keys()
    for name, gradient in expected.items():
        close(projected[name], gradient)
    name = "decoder.stack.layers.0.kv_proj.weight"
    assert (projected[name] - inputs[name]).abs().max() > 1e-6


@pytest.mark.parametrize("projected", [False, True])
def test_memory_of_the_other_kind_is_refused(projected):
    """As a checkpoint hands it on."""
    memory = StreamMemory(4, 4).next()
    build(project_memory=projected)(tokens(2, 4), memory=memory)
    saved = memory.after.to(torch.device("cpu")).as_dict()
    resumed = StreamMemory(4, 4, StreamState(**saved)).next()
    with pytest.raises(UsageError, match="--project-memory.*--reset-dataloader"):
        build(project_memory=not projected)(tokens(2, 4), memory=resumed)


def test_reading_a_batch_again_changes_nothing():
    """As fairseq does when gradients overflow: a batch, or several of an update, anew."""
    model, text = build(), tokens(2, 20)
    expected = in_segments(model, text, 8, 5)
    memory = StreamMemory(20, 8)
    batches = []
    for segment in text.split(5, 1):
        memory = memory.next()
        batches.append((segment, memory))
    for first, last in ((0, 2), (0, 2), (2, 3), (2, 4)):
        for i in range(first, last):
            segment, memory = batches[i]
            scores = log_probs(model, model(segment, memory=memory))
            close(scores, expected[:, 5 * i : 5 * i + 5])


def test_a_batch_that_is_never_read_leaves_the_state():
    model, text = build(), tokens(2, 10)
    first = StreamMemory(10, 10).next()
    model(text[:, :5], memory=first)
    third = first.next().next()
    close(log_probs(model, model(text[:, 5:], memory=third)), whole(model, text, 10)[:, 5:])


def test_every_model_that_reads_a_batch_has_its_own_memory():
    """Of other sizes too, whoever reads first, and though one of them reads twice."""
    models = [build(), build(hidden_size=24, layers=3), build(attention="none")]
    text = tokens(2, 20)
    expected = [in_segments(model, text, 8, 5) for model in models]
    memory = StreamMemory(20, 8)
    for i, segment in enumerate(text.split(5, 1)):
        memory = memory.next()
        readers = [0, 1, 2, 1, 0] if i % 2 else [2, 0, 2, 1]
        for number in readers:
            scores = log_probs(models[number], models[number](segment, memory=memory))
            close(scores, expected[number][:, 5 * i : 5 * i + 5])


def test_what_streams_are_resumed_with_belongs_to_the_first_reader():
    model, other, text = build(), build(layers=3), tokens(2, 10)
    memory = StreamMemory(10, 10).next()
    model(text[:, :5], memory=memory)
    resumed = StreamMemory(10, 10, memory.after).next()
    scores = log_probs(model, model(text[:, 5:], memory=resumed))
    close(scores, whole(model, text, 10)[:, 5:])
    without = log_probs(other, other(text[:, 5:]))
    close(log_probs(other, other(text[:, 5:], memory=resumed)), without)


@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
def test_padding_in_any_segment_is_never_seen(options):
    """Rows of different lengths, padded on the right, and the stream goes on after that."""
    model, text = build(**options), tokens(2, 12)
    alone = [whole(model, text[:1, :12], 5), whole(model, text[1:, :10], 5)]
    padded = text.clone()
    padded[1, 4:6] = PAD
    padded[1, 6:] = text[1, 4:10]
    scores = in_segments(model, padded, 5, 6)
    close(scores[0], alone[0][0])
    close(scores[1, :4], alone[1][0, :4])
    if "none" in options.values():  # a band counts places, so only cells go on exactly
        close(scores[1, 6:], alone[1][0, 4:])
    wide = in_segments(model, padded, 100, 6)
    close(wide[1, 6:], whole(model, text[1:, :10], 100)[0, 4:])


@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
def test_sentences_depend_on_themselves_alone(options):
    model = build(**options)
    rows = [tokens(1, n, seed=n)[0] for n in (7, 1, 4)]
    batch = torch.full((3, 9), PAD)
    for i, row in enumerate(rows):
        batch[i, : len(row)] = row
    scores = log_probs(model, model(batch))
    for i, row in enumerate(rows):
        close(scores[i, : len(row)], log_probs(model, model(row[None]))[0])


@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
def test_incremental_decoding_equals_the_full_forward(options):
    """Hypotheses are reordered, repeated and dropped at random."""
    model = build(**options)
    generator = torch.Generator().manual_seed(0)
    prefix, state = torch.full((6, 1), EOS), {}
    for step in range(14):
        scores = model.decoder(prefix, incremental_state=state)
        close(log_probs(model, scores), log_probs(model, model(prefix))[:, -1:])
        rows = 4 if step == 9 else len(prefix)
        order = torch.randint(0, len(prefix), (rows,), generator=generator)
        model.decoder.reorder_incremental_state_scripting(state, order)
        new = torch.randint(4, VOCABULARY, (rows, 1), generator=generator)
        prefix = torch.cat([prefix[order], new], 1)


@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
def test_generation_context_is_the_band_of_evaluation(options):
    model, text = build(**options, generation_context=5), tokens(3, 20)
    close(log_probs(model, model.decoder(text, incremental_state={})), whole(model, text, 5))


def test_a_prompt_may_be_read_at_once():
    model, prompt = build(), tokens(2, 6)
    close(model.decoder(prompt, incremental_state={})[0], model(prompt)[0])


def test_start_values():
    decoder = build("srupp_lm_bytes", hidden_size=48, proj_size=12, layers=1).decoder
    assert decoder.embed_tokens.weight.abs().max() <= (3 / 48) ** 0.5
    assert abs(decoder.embed_tokens.weight.std() * 48**0.5 - 1) < 0.1
    assert abs(decoder.output_projection.weight.std() * 48**0.5 - 1) < 0.1
    assert not decoder.output_projection.bias.any()
    assert not decoder.embed_tokens.weight[PAD].any()
    assert decoder.stack.layers[0].recurrence.bias[1].eq(-2).all()
    adaptive = build(adaptive_cutoff="10,20", embed_dim=64).decoder
    for band, _ in adaptive.embed_tokens.embeddings:
        assert abs(band.weight.std() * band.embedding_dim**0.5 - 1) < 0.15
    assert not adaptive.adaptive_softmax.tail[0][-1].bias.any()


def test_dropouts_default_to_dropout():
    decoder = build(dropout=0.3, attention_dropout=0.0).decoder
    assert (decoder.embedding_dropout, decoder.output_dropout) == (0.3, 0.3)
    assert decoder.stack.layers[0].dropout == 0.3
    assert decoder.stack.layers[0].attention_dropout == 0.0
    adaptive = build(dropout=0.3, adaptive_cutoff="10").decoder
    assert adaptive.output_dropout == 0.0
    assert adaptive.adaptive_softmax.dropout_module.p == 0.3


@pytest.mark.parametrize("options, message", [
    (dict(adaptive_cutoff="20,10"), "rising numbers"),
    (dict(adaptive_cutoff="10,50"), "below the 40 types"),
    (dict(adaptive_cutoff="some"), "got 'some'"),
    (dict(adaptive_cutoff="10", share_decoder_input_output_embed=True), "leave out"),
    (dict(tie_adaptive_proj=True), "needs --adaptive-cutoff"),
    (dict(num_heads=3), "does not divide"),
    (dict(attention="9"), "the layers are 1 to 2"),
])
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


class Task:
    """A task that reads more types than the model is to predict."""

    def __init__(self, output_types, **options):
        self.source_dictionary = Dictionary()
        for i in range(VOCABULARY - len(self.source_dictionary)):
            self.source_dictionary.add_symbol(f"w{i}")
        self.target_dictionary = TruncatedDictionary(self.source_dictionary, output_types)
        self.args = SimpleNamespace(**options)


MODELS = [(SRUppLanguageModel, SRUppLMConfig, PRESETS["srupp_lm_tiny"]),
          (SRULanguageModel, SRULMConfig, SRU_PRESETS["sru_lm_tiny"])]


@pytest.mark.parametrize("model, config, preset", MODELS)
def test_options_of_the_task_reach_the_model(model, config, preset):
    """--output-dictionary-size and --max-target-positions, whether the task or the model has it."""
    built = model.build_model(config(**preset), Task(20, max_target_positions=7))
    scores, _ = built(tokens(2, 9))
    assert scores.shape == (2, 9, 20)
    assert built.max_positions() == built.max_decoder_positions() == 7
    built = model.build_model(config(**preset, max_target_positions=5), Task(20))
    assert built.max_positions() == 5
    assert model.build_model(config(**preset), Task(20)).max_positions() == sys.maxsize
    for tied in dict(share_decoder_input_output_embed=True), dict(adaptive_cutoff="8"):
        with pytest.raises(ValueError, match="--output-dictionary-size needs an output of its own"):
            model.build_model(config(**{**preset, **tied}), Task(20))


def test_the_engine_leaves_a_smaller_output_alone():
    built = SRUppLanguageModel.build_model(SRUppLMConfig(**PRESETS["srupp_lm_tiny"]), Task(20))
    with pytest.raises(ValueError, match="--output-dictionary-size"):
        read_model(built)


@pytest.mark.parametrize("context", [0, 1, 3, 5, 20])
def test_a_state_keeps_the_last_inputs_and_no_more(context):
    """Segments shorter and longer than the context."""
    x = torch.arange(12.0).view(12, 1, 1)
    pad, state, read = x[..., 0] % 5 == 0, None, 0
    for length in (2, 2, 7, 1):
        segment = slice(read, read + length)
        state = StreamState.after(state, torch.zeros(1, 1, 1), [x[segment]], pad[segment], context)
        read += length
        kept = slice(max(0, read - context), read)
        assert torch.equal(state.inputs[0], x[kept]) and torch.equal(state.pad, pad[kept])
