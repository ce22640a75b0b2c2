"""Transformer with SRU: published sizes, padding, incremental decoding, fairseq's commands."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import USER_DIR, run_fairseq, train
from fairseq import utils
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.modules import FairseqDropout

from fairseq_sru.models.embedding import Dropout
from fairseq_sru.models.transformer_sru import PRESETS, SRUInside

PAD, EOS = 1, 2
VARIANTS = [
    dict(),
    dict(sru_bidirectional_encoder=True),
    dict(encoder_normalize_before=True, decoder_normalize_before=True, share_all_embeddings=True),
    dict(no_token_positional_embeddings=True, checkpoint_activations=True),
]


@pytest.fixture(autouse=True)
def softmax_in_float64(monkeypatch):
    """fairseq's attention takes its softmax in float32 whatever it is given."""
    monkeypatch.setattr(utils, "softmax", lambda x, dim, onnx_trace=False: F.softmax(x, dim))


def make_task(types):
    words = Dictionary()
    for i in range(types - len(words)):
        words.add_symbol(f"w{i}")
    return SimpleNamespace(source_dictionary=words, target_dictionary=words)


def build(arch="transformer_sru_tiny", types=30, **options):
    """A model in float64 that does not drop anything out."""
    args = Namespace(**options)
    ARCH_CONFIG_REGISTRY[arch](args)
    torch.manual_seed(0)
    return ARCH_MODEL_REGISTRY[arch].build_model(args, make_task(types)).double().eval()


def millions(arch, types, **options):
    args = Namespace(**options)
    ARCH_CONFIG_REGISTRY[arch](args)
    with torch.device("meta"):
        model = ARCH_MODEL_REGISTRY[arch].build_model(args, make_task(types))
    return sum(p.numel() for p in model.parameters()) / 1e6


@pytest.mark.parametrize("options", [{}, dict(sru_bidirectional_encoder=True)])
@pytest.mark.parametrize("arch, published", [
    ("transformer_sru_wmt_en_de", 79), ("transformer_sru_wmt_en_de_5", 90),
])
def test_published_sizes(arch, published, options):
    """SRU paper, table 3, for 32,000 word pieces; the paper cuts off the decimals."""
    assert int(millions(arch, 32000, **options)) == published


def test_size_of_the_plain_transformer():
    """The paper's 76M, counted the same way: one of the three embeddings is shared."""
    assert int(millions("transformer_wmt_en_de", 32000,
                        share_decoder_input_output_embed=True)) == 76


def test_iwslt_size():
    plain = millions("transformer_iwslt_de_en", 10000, share_decoder_input_output_embed=True)
    assert abs(millions("transformer_sru_iwslt_de_en", 10000) / plain - 1) < 0.1


def test_multi30k_size():
    sizes = dict(
        encoder_layers=4, decoder_layers=4, encoder_embed_dim=128, decoder_embed_dim=128,
        encoder_ffn_embed_dim=256, decoder_ffn_embed_dim=256, encoder_attention_heads=4,
        decoder_attention_heads=4, share_all_embeddings=True)
    plain = millions("transformer", 8000, **sizes)
    assert abs(millions("transformer_sru_multi30k", 8000) / plain - 1) < 0.01


def test_the_feed_forward_is_an_sru_and_a_linear_map():
    """final_layer_norm(x + W SRU(x) + b), attention aside."""
    layer = build().encoder.layers[1]
    x = torch.randn(5, 3, 16, dtype=torch.float64)
    pad = torch.zeros(3, 5, dtype=torch.bool)
    pad[1, 3:] = True
    attended = layer.self_attn_layer_norm(x + layer.self_attn(x, x, x, pad)[0])
    sru = layer.fc1.layer(attended, pad=pad.t())[0]
    u = layer.fc1.layer.out_proj(attended).view(5, 3, 3, 32)
    v, b = layer.fc1.layer.recurrence.weight_c, layer.fc1.layer.recurrence.bias
    c = u.new_zeros(3, 32)
    f = torch.sigmoid(u[0, :, 0] + b[0] + v[0] * c)
    first = torch.sigmoid(u[0, :, 1] + b[1] + v[1] * c) * ((1 - f) * u[0, :, 2])
    torch.testing.assert_close(sru[0], first)
    expected = layer.final_layer_norm(
        attended + sru @ layer.fc2.weight.t() + layer.fc2.bias)
    torch.testing.assert_close(layer(x, pad), expected)


def test_dropout_is_of_the_cell_state():
    layer = SRUInside(16, 32, dropout=0.5).train()
    h = layer(torch.randn(6, 3, 16))
    dropped = (h == 0).all(0)
    assert 0.2 < dropped.float().mean() < 0.8
    assert torch.equal(dropped, (h == 0).any(0))
    assert PRESETS["transformer_sru_wmt_en_de_5"]["sru_dropout"] == 0.2
    assert build(sru_dropout=0.4).decoder.layers[0].fc1.layer.recurrence.dropout == 0.4


def test_every_dropout_is_by_the_kernel():
    """In training, and where it is retained; with the probability and the name that it had."""
    model = build(dropout=0.3, activation_dropout=0.2)
    found = [part for part in model.modules() if isinstance(part, FairseqDropout)]
    assert {type(part) for part in found} == {Dropout}
    assert {part.p for part in found} == {0.0, 0.2, 0.3}
    part = model.encoder.dropout_module
    assert part.module_name == "TransformerSRUEncoder"
    x = torch.ones(10000)
    for dropped in (part.train()(x), retained(part.eval())(x)):
        assert set(dropped.tolist()) == {0.0, x.div(0.7)[0].item()}
        assert abs((dropped == 0).float().mean() - 0.3) < 0.05
    assert torch.equal(model.decoder.dropout_module.eval()(x), x)


def retained(part):
    part.apply_during_inference = True
    return part


def sentences(count, low, high, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(low, high, (count,), generator=generator).tolist()
    return [torch.randint(4, 30, (n,), generator=generator) for n in lengths]


def batch(rows, left=False, extra=0):
    length = max(map(len, rows)) + extra
    out = torch.full((len(rows), length), PAD)
    for i, row in enumerate(rows):
        start = length - len(row) if left else 0
        out[i, start : start + len(row)] = row
    return out


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_scores_depend_on_the_sentence_alone(options):
    """Not on batch-mates, padding side or padding amount."""
    model = build(**options)
    sources, targets = sentences(4, 1, 8), sentences(4, 1, 8, seed=1)
    alone = [model(s[None], None, t[None])[0][0] for s, t in zip(sources, targets)]
    for left in (True, False):
        for extra in (0, 3):
            prev = batch(targets, extra=extra)
            scores, _ = model(batch(sources, left, extra), None, prev)
            for i, expected in enumerate(alone):
                torch.testing.assert_close(
                    scores[i][prev[i] != PAD], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_incremental_decoding_equals_the_full_forward(options):
    """Beams are reordered at random and sentences finish, as in fairseq's beam search."""
    model, beam = build(**options), 3
    encoder, decoder = model.encoder, model.decoder
    generator = torch.Generator().manual_seed(0)
    encoded = encoder.reorder_encoder_out(
        encoder(batch(sentences(4, 1, 9), left=True)), torch.arange(4).repeat_interleave(beam))
    prefix = torch.full((4 * beam, 1), EOS)
    state = {}
    for step in range(12):
        scores, _ = decoder(prefix, encoder_out=encoded, incremental_state=state)
        full, _ = decoder(prefix, encoder_out=encoded)
        torch.testing.assert_close(scores, full[:, -1:], rtol=0, atol=1e-10)
        left = torch.arange(len(prefix) // beam)
        if step in (4, 9):
            left = left[left != 1]
        order = torch.cat([
            s * beam + torch.randint(0, beam, (beam,), generator=generator) for s in left])
        decoder.reorder_incremental_state_scripting(state, order)
        encoded = encoder.reorder_encoder_out(encoded, order)
        new = torch.randint(4, 30, (len(order), 1), generator=generator)
        prefix = torch.cat([prefix[order], new], 1)


def test_all_parameters_learn():
    model = build().train()
    model(torch.tensor([[5, 6, 7]]), None, torch.tensor([[EOS, 8, 9]]))[0].logsumexp(-1).sum(
        ).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_input_embeddings_can_be_shared():
    model = build(share_input_embeddings=True)
    assert model.encoder.embed_tokens is model.decoder.embed_tokens
    assert model.decoder.output_projection.weight is not model.decoder.embed_tokens.weight


@pytest.mark.parametrize("options, message", [
    (dict(share_input_embeddings=True, decoder_embed_dim=24), "embed-dim"),
    (dict(sru_bidirectional_encoder=True, encoder_ffn_embed_dim=33), "even"),
])
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_fairseq_trains_and_generates(data, tmp_path):
    train(data, tmp_path, "--arch", "transformer_sru_tiny", "--max-update", "4",
          "--sru-dropout", "0.2", "--sru-bidirectional-encoder")
    state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    assert state["cfg"]["model"].sru_bidirectional_encoder
    result = run_fairseq("generate", data, "--user-dir", USER_DIR, "--cpu", "--beam", "2",
                         "--path", tmp_path / "checkpoint_last.pt", "--max-len-b", "8")
    assert "Generate test with beam=2: BLEU4" in result.stdout


def test_another_activation_is_refused():
    """It would be ignored: the recurrence stands in its place."""
    with pytest.raises(ValueError, match="--activation-fn: SRU layers stand"):
        build(activation_fn="gelu")
