"""The engine's encoder and step equal the model's own, in float32; other precisions come near."""

import pytest
import torch
from test_translation import VARIANTS, build, sentences, variant_id

from fairseq_sru.inference import PRECISIONS, Engine, ModelWeights, read_model
from fairseq_sru.inference.encoder import Encoder
from fairseq_sru.modules import SRU, SRUpp
from fairseq_sru.ops.extension import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")

BOUNDS = {"float32": 1e-5, "bfloat16": 4e-2, "int8": 1e-1}  # of the standard deviation

ODD = dict(embed_dim=20, hidden_size=44, proj_size=18, num_heads=3)
LARGE = dict(embed_dim=96, hidden_size=256, proj_size=112, num_heads=4)


def float32_model(**options):
    return build(**options).float()


def decoder_of(weights):
    options = {name: float(value) for name, value in weights.config["decoder"].items()}
    return torch.classes.fairseq_sru.Decoder(weights.part("decoder"), options, "")


def logits(decoder, sources, tokens):
    """(N, T, vocabulary) for encoded sources [(S, D)] and tokens (N, T)."""
    return torch.ops.fairseq_sru.decoder_logits(
        decoder, torch.cat(sources), torch.tensor([len(x) for x in sources]), tokens)


def relative(error, reference):
    return (error.abs().max() / reference.std()).item()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("sizes", [{}, ODD, LARGE], ids=["tiny", "odd", "large"])
@pytest.mark.parametrize("options", VARIANTS, ids=variant_id)
@torch.inference_mode()
def test_logits_equal_the_models(options, sizes, precision):
    """Whatever is encoded and decoded together, over more tokens than the first slots hold."""
    model = float32_model(**{**sizes, **options})
    weights = read_model(model, precision)
    sources = sentences(4, 1, 9, 30)
    tokens = torch.randint(4, 25, (4, 90), generator=torch.Generator().manual_seed(1))
    encoded = Encoder(weights.config["encoder"], weights.part("encoder"))(sources)
    actual = logits(decoder_of(weights), encoded, tokens)
    for i, source in enumerate(sources):
        out = model.encoder(source[None])
        expected = model.decoder(tokens[i : i + 1], out)[0][0]
        own = out["encoder_out"][0][:, 0]
        assert relative(encoded[i] - own, own) < BOUNDS[precision]
        assert relative(actual[i] - expected, expected) < BOUNDS[precision]


@torch.inference_mode()
def test_float32_is_as_near_to_float64_as_the_model():
    """Where activations are large, both err alike."""
    model = float32_model(layer_norm="post", no_attention_norm=True, scale_embeddings=True)
    exact = build(layer_norm="post", no_attention_norm=True, scale_embeddings=True)
    weights = read_model(model)
    source, tokens = sentences(1, 6, 7, 30)[0], torch.full((1, 40), 5)
    encoded = Encoder(weights.config["encoder"], weights.part("encoder"))([source])
    actual = logits(decoder_of(weights), encoded, tokens)
    expected = exact(source[None], None, tokens)[0]
    own = (model(source[None], None, tokens)[0] - expected).abs().max()
    assert (actual - expected).abs().max() < 3 * own


@pytest.mark.parametrize("precision", PRECISIONS)
def test_batch_mates_change_nothing(precision):
    """Bitwise, padding or not."""
    weights = read_model(float32_model(**LARGE), precision)
    encoder = Encoder(weights.config["encoder"], weights.part("encoder"))
    decoder = decoder_of(weights)
    sources = sentences(7, 1, 12, 30)
    tokens = torch.randint(4, 25, (7, 12), generator=torch.Generator().manual_seed(1))
    encoded = [encoder([source])[0] for source in sources]
    for mine, alone in zip(encoder(sources), encoded):
        torch.testing.assert_close(mine, alone, rtol=0, atol=1e-5)
    together = logits(decoder, encoded, tokens)
    for i, source in enumerate(encoded):
        assert torch.equal(logits(decoder, [source], tokens[i : i + 1])[0], together[i])


@pytest.mark.parametrize("isa", torch.ops.fairseq_sru.packed_isas(torch.int8) if COMPILED else [])
def test_int8_is_the_same_by_all_instructions_but_for_the_rest(isa):
    """Products are bitwise equal; what lies between them rounds by a few units."""
    weights = read_model(float32_model(**LARGE), "int8")
    encoded = [torch.randn(5, 256, generator=torch.Generator().manual_seed(1))]
    options = {name: float(value) for name, value in weights.config["decoder"].items()}
    results = [
        logits(torch.classes.fairseq_sru.Decoder(weights.part("decoder"), options, name), encoded,
               torch.full((1, 10), 7))
        for name in (isa, "")
    ]
    assert torch.equal(*results)


STACKS = [
    lambda: SRU(12, 20, num_layers=3),
    lambda: SRU(12, 20, num_layers=2, proj_size=[None, 7], highway=False, weight_c=False),
    lambda: SRU(20, 20, num_layers=2, proj_size=6, layer_norm="pre", project_input=True),
    lambda: SRU(12, 20, num_layers=2, layer_norm="post", rescale=False, project_input=True),
    lambda: SRUpp(12, 20, 6, num_layers=3, attention="every:2", alpha_init=1.0, num_heads=2),
    lambda: SRUpp(20, 20, 6, num_layers=2, alpha_init=1.0, highway=False, rescale=True),
]


class Model(torch.nn.Module):
    """A language model's decoder, as the engine sees it."""

    def __init__(self, stack, window=None):
        super().__init__()
        self.decoder = torch.nn.Module()
        self.decoder.stack = stack
        self.decoder.embed_tokens = torch.nn.Embedding(30, stack.input_size)
        self.decoder.output_projection = torch.nn.Linear(stack.output_size, 30)
        self.decoder.generation_context = window
        self.decoder.dictionary = Dictionary()


class Dictionary:
    pad, unk, eos = (lambda self: 1), (lambda self: 3), (lambda self: 2)

    def __len__(self):
        return 30


@pytest.mark.parametrize("window", [None, 0, 3])
@pytest.mark.parametrize("build_stack", STACKS)
@torch.inference_mode()
def test_steps_equal_the_stacks(build_stack, window):
    """Of SRU and SRU++ alike, token by token, without a source."""
    torch.manual_seed(1)
    model = Model(build_stack(), window).eval()
    decoder, stack = model.decoder, model.decoder.stack
    tokens = torch.randint(30, (3, 11))
    actual = logits(decoder_of(read_model(model)), [torch.zeros(0, 20)] * 3, tokens)
    state = stack.start(3, window=window)
    for t in range(11):
        h, _ = stack.step(decoder.embed_tokens(tokens[:, t]).unsqueeze(0), state)
        expected = decoder.output_projection(h[0])
        torch.testing.assert_close(actual[:, t], expected, rtol=1e-5, atol=1e-5)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of"):
        read_model(float32_model(), "int4")


@pytest.mark.parametrize("model, words", [
    (torch.nn.Linear(2, 3), "no stack"),
    (Model(SRU(12, 20, tanh=True)), "tanh"),
])
def test_models_that_it_does_not_run_are_refused(model, words):
    with pytest.raises(ValueError, match=words):
        read_model(model)


@pytest.mark.parametrize("change, words", [
    (lambda tensors: [tensors.pop(name) for name in list(tensors) if "decoder.stack" in name],
     "no layers"),
    (lambda tensors: tensors.pop("decoder.stack.layers.1.recurrence.bias"), "is missing"),
    (lambda tensors: tensors.update({"decoder.more": torch.zeros(2)}), "unknown weight"),
    (lambda tensors: tensors.update(
        {"decoder.stack.layers.0.q_proj.weight": torch.zeros(8, 31)}), "sizes"),
])
def test_incomplete_weights_are_refused(change, words):
    weights = read_model(float32_model())
    change(weights.tensors)
    with pytest.raises(ValueError, match=words):
        Engine(weights)


DAMAGE = {
    "one fewer": lambda t: t[:-1],
    "one more": lambda t: torch.cat([t, t[:1]]),
    "transposed": lambda t: t.t().contiguous(),
    "flat": lambda t: t.flatten(),
    "one more dimension": lambda t: t[None],
    "one number": lambda t: t.flatten()[0],
    "nothing": lambda t: t[:0],
    "float64": lambda t: t.double(),
    "integers": lambda t: t.to(torch.int16),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_tensor_of_another_kind_is_refused(change, precision):
    options = dict(proj_size=8, embed_dim=12, rescale=True, layer_norm="post")
    weights = read_model(float32_model(**options), precision)
    for name, tensor in weights.tensors.items():
        damaged = change(tensor)
        if damaged.shape != tensor.shape or damaged.dtype != tensor.dtype:
            with pytest.raises((TypeError, ValueError)):
                Engine(ModelWeights(weights.config, {**weights.tensors, name: damaged}))
                print(f"{name} was read")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_where_int8_saves_no_time_it_is_said(precision, recwarn):
    Engine(read_model(float32_model(), precision), isa="portable")
    assert ["int8 saves memory" in str(w.message) for w in recwarn] == [True] * (
        precision == "int8")
