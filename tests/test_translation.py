"""The translation model: sizes, padding, batch-mates, incremental decoding, alignments."""

from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary

from fairseq_sru.errors import UsageError
from fairseq_sru.models.config import SRUppConfig
from fairseq_sru.models.encoder import expand
from fairseq_sru.models.translation import PRESETS, SRUppModel

PAD, EOS = 1, 2


def build(preset="srupp_tiny", source=30, target=25, **options):
    """A model in float64 without dropout, for dictionaries of these many types."""

    def dictionary(size):
        words = Dictionary()
        for i in range(size - len(words)):
            words.add_symbol(f"w{i}")
        return words

    task = SimpleNamespace(source_dictionary=dictionary(source))
    task.target_dictionary = task.source_dictionary if target is None else dictionary(target)
    cfg = SRUppConfig(**{**PRESETS[preset], **options})
    torch.manual_seed(0)
    return SRUppModel.build_model(cfg, task).double().eval()


VARIANTS = [
    dict(),
    dict(encoder_bidirectional=True, num_heads=1),
    dict(encoder_attention="none", decoder_attention="every:2"),
    dict(decoder_attention="none"),
    dict(no_encoder_output_norm=True, layer_norm="pre", rescale=True),
    dict(layer_norm="post", no_attention_norm=True, scale_embeddings=True),
]


def variant_id(options):
    return "-".join(f"{k}={v}" for k, v in options.items()) or "plain"


def sentences(count, low, high, vocabulary, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(low, high, (count,), generator=generator).tolist()
    return [torch.randint(4, vocabulary, (n,), generator=generator) for n in lengths]


def batch(rows, left=False, extra=0):
    length = max(map(len, rows)) + extra
    out = torch.full((len(rows), length), PAD)
    for i, row in enumerate(rows):
        start = length - len(row) if left else 0
        out[i, start : start + len(row)] = row
    return out


@pytest.mark.parametrize("preset, millions", [("srupp_iwslt", 20.4), ("srupp_iwslt_k2", 19.6)])
def test_published_sizes(preset, millions):
    """SRU++ paper, table 8, for vocabularies of 21,000 types in all."""
    model = build(preset, 12000, 9000)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
def test_scores_depend_on_the_sentence_alone(options):
    """Not on batch-mates, padding side or padding amount."""
    model = build(**options)
    sources, targets = sentences(4, 1, 8, 30), sentences(4, 1, 8, 25, seed=1)
    alone = [model(s[None], None, t[None])[0][0] for s, t in zip(sources, targets)]
    for left_source in (True, False):
        for left_target in (True, False):
            for extra in (0, 3):
                prev = batch(targets, left_target, extra)
                scores, _ = model(batch(sources, left_source, extra), None, prev)
                for i, expected in enumerate(alone):
                    torch.testing.assert_close(
                        scores[i][prev[i] != PAD], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
@pytest.mark.parametrize("beam", [1, 3])
def test_incremental_decoding_equals_the_full_forward(options, beam):
    """Beams are reordered at random, sentences finish, as in fairseq's beam search."""
    model = build(**options)
    encoder, decoder = model.encoder, model.decoder
    generator = torch.Generator().manual_seed(0)
    source = batch(sentences(4, 1, 9, 30), left=True)
    encoded = encoder.reorder_encoder_out(encoder(source), torch.arange(4).repeat_interleave(beam))
    prefix = torch.full((4 * beam, 1), EOS)
    state = {}
    for step in range(14):
        scores, extra = decoder(prefix, encoder_out=encoded, incremental_state=state)
        full, full_extra = decoder(prefix, encoder_out=encoded)
        torch.testing.assert_close(scores, full[:, -1:], rtol=0, atol=1e-10)
        if extra["attn"][0] is not None:
            torch.testing.assert_close(
                extra["attn"][0], full_extra["attn"][0][:, -1:], rtol=0, atol=1e-10)
        left = len(prefix) // beam
        keep = torch.arange(left)
        if step in (4, 9):
            keep = keep[torch.arange(left) != 1]
        order = torch.cat([
            s * beam + torch.randint(0, beam, (beam,), generator=generator) for s in keep])
        if step == 12:  # not what beam search does, yet right: rows change sentence
            order = torch.randint(0, len(prefix), (5,), generator=generator)
        decoder.reorder_incremental_state_scripting(state, order)
        encoded = encoder.reorder_encoder_out(encoded, order)
        new = torch.randint(4, 25, (len(order), 1), generator=generator)
        prefix = torch.cat([prefix[order], new], 1)


@pytest.mark.parametrize("order", [[2, 0, 1], [0, 0, 1, 2], [1, 1]])
def test_decoding_may_start_from_any_order_of_sentences(order):
    """Not only from as many hypotheses of each, side by side."""
    model = build()
    encoded = model.encoder.reorder_encoder_out(
        model.encoder(batch(sentences(3, 1, 9, 30))), torch.tensor(order))
    prefix = batch(sentences(len(order), 5, 6, 25))
    full, _ = model.decoder(prefix, encoder_out=encoded)
    state = {}
    for t in range(5):
        scores, _ = model.decoder(
            prefix[:, : t + 1], encoder_out=encoded, incremental_state=state)
        torch.testing.assert_close(scores, full[:, t : t + 1], rtol=0, atol=1e-10)


def test_the_source_is_not_copied_for_every_beam():
    model = build()
    encoded = model.encoder(torch.randint(4, 30, (3, 6)))
    beams = model.encoder.reorder_encoder_out(encoded, torch.arange(3).repeat_interleave(5))
    assert beams["encoder_out"][0].data_ptr() == encoded["encoder_out"][0].data_ptr()
    state = {}
    model.decoder(torch.full((15, 1), EOS), encoder_out=beams, incremental_state=state)
    cache = model.decoder.get_incremental_state(state, "decoding").caches[0]
    assert cache.values.shape[:2] == (3, 6 + 5)  # per sentence: source + a slot per beam


def test_attention_falls_on_real_source_tokens_only():
    model = build()
    source = batch(sentences(3, 2, 8, 30))
    _, extra = model(source, None, batch(sentences(3, 2, 5, 25)))
    attention = extra["attn"][0]
    assert attention.shape[2] == source.shape[1]
    assert not attention.masked_select((source == PAD)[:, None]).any()
    assert (attention.sum(-1) < 1).all()  # the rest goes to the target


@pytest.mark.parametrize("training", [False, True])
def test_the_alignment_is_that_of_the_layer_and_the_heads_asked_for(training):
    model = build(decoder_layers=3, decoder_attention="1,2").train(training)
    source, previous = batch(sentences(3, 2, 8, 30)), batch(sentences(3, 2, 5, 25))
    layers = model.decoder.stack.layers
    weights = {}
    for number, layer in enumerate(layers):
        layer.dropout = layer.recurrence.dropout = 0.0
        layer.register_forward_hook(
            lambda layer, args, out, number=number: weights.update({number: out[2]}))
    for asked, number in ((None, 1), (0, 0), (1, 1)):
        for heads in (None, 1, 2):
            extra = model(source, None, previous, alignment_layer=asked, alignment_heads=heads)[1]
            expected = weights.pop(number)[:, :heads, :, : source.size(1)].mean(1)
            torch.testing.assert_close(extra["attn"][0], expected, rtol=0, atol=0)
            assert all(w is None for w in weights.values()), "only one layer need compute them"
    with pytest.raises(ValueError, match=r"alignment_layer 2 does not attend.*\[0, 1\]"):
        model(source, None, previous, alignment_layer=2)


def test_hidden_states_are_returned_as_the_transformers_are():
    model = build()
    source, previous = batch(sentences(3, 2, 8, 30)), batch(sentences(3, 2, 5, 25))
    encoded = model.encoder(source, return_all_hiddens=True)
    assert [tuple(x.shape) for x in encoded["encoder_states"]] == 3 * [(source.size(1), 3, 32)]
    states = model(source, None, previous)[1]["inner_states"]
    assert [tuple(x.shape) for x in states] == 3 * [(previous.size(1), 3, 32)]
    order = torch.tensor([2, 0])
    chosen = expand(model.encoder.reorder_encoder_out(encoded, order))["encoder_states"]
    assert torch.equal(chosen[1], encoded["encoder_states"][1][:, order])


def test_unknown_arguments_are_refused():
    model = build()
    tokens = torch.tensor([[5, 6]])
    encoded = model.encoder(tokens)
    for call in (
        lambda: model(tokens, None, tokens, full_context=True),
        lambda: model.encoder(tokens, full_context=True),
        lambda: model.decoder(tokens, encoded, full_context_alignment=True),
        lambda: model.decoder.extract_features(tokens, encoded, full_context_alignment=True),
    ):
        with pytest.raises(TypeError, match="full_context"):
            call()


@pytest.mark.parametrize("options", [dict(), dict(encoder_bidirectional=True)], ids=variant_id)
def test_gradients_are_finite_for_empty_and_one_token_sentences(options):
    model = build(**options).train()
    source = torch.tensor([[PAD, PAD, PAD], [PAD, PAD, 5], [6, 7, 8]])
    target = torch.tensor([[EOS, PAD, PAD], [EOS, 5, PAD], [PAD, PAD, PAD]])
    model(source, None, target)[0].logsumexp(-1).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("options, message", [
    (dict(num_heads=3), "num_heads"),
    (dict(decoder_attention="sometimes"), "attention must be"),
    (dict(encoder_attention="7"), "layers are 1 to 2"),
    (dict(encoder_bidirectional=True, hidden_size=33), "even --hidden-size"),
    (dict(share_all_embeddings=True), "--joined-dictionary"),
])
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_embeddings_can_be_shared():
    shared = build(target=None, share_all_embeddings=True)
    assert shared.encoder.embed_tokens.weight is shared.decoder.output_projection.weight
    apart = build()
    assert apart.decoder.embed_tokens.weight is not apart.decoder.output_projection.weight


def test_embeddings_start_from_word_vectors(tmp_path):
    """Of each side its own, or one for both; words that a file lacks start at random."""
    for side, word in ("de", "w1"), ("en", "w2"):
        vector = " ".join(str(number) for number in range(16))
        (tmp_path / side).write_text(f"{word} {vector}\nnowhere {vector}\n")
    de, en = str(tmp_path / "de"), str(tmp_path / "en")
    expected = torch.arange(16, dtype=torch.float64)
    plain = build()
    model = build(encoder_embed_path=de, decoder_embed_path=en)
    for part, other, word in (
            (model.encoder, plain.encoder, "w1"), (model.decoder, plain.decoder, "w2")):
        index = part.dictionary.index(word)
        weight = part.embed_tokens.weight
        assert torch.equal(weight[index], expected)
        others = torch.arange(len(weight)) != index
        assert torch.equal(weight[others], other.embed_tokens.weight[others])
    shared = build(target=None, share_all_embeddings=True, encoder_embed_path=de)
    index = shared.encoder.dictionary.index("w1")
    assert torch.equal(shared.decoder.output_projection.weight[index], expected)
    with pytest.raises(ValueError, match="has one embedding: give its vectors by"):
        build(target=None, share_all_embeddings=True, decoder_embed_path=en)
    with pytest.raises(UsageError, match="has not 8 numbers|--embed-dim"):
        build(embed_dim=8, encoder_embed_path=de)
