"""--retain-dropout: every dropout of every model stays on in inference, and only where asked."""

from copy import copy
from functools import lru_cache
from types import SimpleNamespace

import pytest
import torch
from fairseq import models, options
from fairseq.data import Dictionary
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import OmegaConf

import fairseq_sru
from fairseq_sru.errors import UsageError
from fairseq_sru.ops.extension import COMPILED

fairseq_sru.register()

EOS = 2
ADAPTIVE = ["--adaptive-cutoff", "10,20"]
# the smallest architecture of every model, and what else brings modules of its own with it
MODELS = {
    "srupp_tiny": [],
    "srupp_lm_tiny": [],
    "srupp_lm_tiny adaptive": ADAPTIVE,
    "sru_lm_tiny": [],
    "sru_lm_tiny adaptive": ADAPTIVE,
    "transformer_sru_tiny": [],
    "sru_classifier_tiny": [],
    "srupp_classifier": [],
}


@lru_cache(maxsize=None)
def parsed(name):
    return options.parse_args_and_arch(
        options.get_training_parser(), ["data", "--arch", name.split()[0], *MODELS[name]])


def build(name, **dropouts):
    """A model in evaluation mode without any dropout but these."""
    arch = name.split()[0]
    config = copy(parsed(name))
    for option in dropout_options(name):
        setattr(config, option, dropouts.get(option, 0.0))
    registered = models.ARCH_MODEL_NAME_REGISTRY[arch]
    if registered in models.MODEL_DATACLASS_REGISTRY:
        config = models.MODEL_DATACLASS_REGISTRY[registered].from_namespace(config)
    words = Dictionary()
    for i in range(40 - len(words)):
        words.add_symbol(f"w{i}")
    torch.manual_seed(0)
    task = SimpleNamespace(source_dictionary=words, target_dictionary=words)
    model = models.ARCH_MODEL_REGISTRY[arch].build_model(config, task).eval()
    for i, parameter in enumerate(model.parameters()):  # alpha and biases that start at 0
        generator = torch.Generator().manual_seed(i)
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def dropout_options(name):
    model = models.ARCH_MODEL_NAME_REGISTRY[name.split()[0]]
    dataclass = models.MODEL_DATACLASS_REGISTRY.get(model)
    known = vars(parsed(name)) if dataclass is None else dataclass.__dataclass_fields__
    return [option for option in known
            if option.endswith("dropout") and option != "adaptive_softmax_dropout"]


EVERY_OPTION = [(name, option) for name in MODELS for option in dropout_options(name)]


def prepare(model, retain_dropout, modules=None):
    """As fairseq's commands do."""
    generation = dict(retain_dropout=retain_dropout, retain_dropout_modules=modules)
    model.prepare_for_inference_(OmegaConf.create({"generation": generation}))


def outputs(model):
    """Whole sentences, and token by token where the model can."""
    tokens = torch.arange(4, 39).view(5, 7)
    previous = torch.cat([tokens.new_full((5, 1), EOS), tokens[:, :-1]], 1)
    with torch.no_grad():
        if hasattr(model, "classification_heads"):
            return [model(tokens)[0]]
        if not hasattr(model, "encoder"):
            return [model.get_normalized_probs(out, log_probs=True) for out in (
                model(previous), model.decoder(previous, incremental_state={}))]
        encoded = model.encoder(tokens, torch.full((5,), 7))
        state = {}
        steps = [model.decoder(previous[:, :n], encoded, incremental_state=state)[0]
                 for n in range(1, 8)]
        return [model.decoder(previous, encoded)[0], torch.cat(steps, 1)]


def vary(model):
    return [not torch.equal(*pair) for pair in zip(outputs(model), outputs(model))]


@pytest.mark.parametrize("name, option", EVERY_OPTION)
def test_every_dropout_stays_on(name, option):
    for retained in (False, True):
        model = build(name, **{option: 0.5})
        prepare(model, retained)
        assert set(vary(model)) == {retained}


def test_every_option_is_looked_at():
    assert len(EVERY_OPTION) >= 25


@pytest.mark.parametrize("name, module, option", [
    ("srupp_tiny", "SRUppEncoder", "embedding_dropout"),
    ("srupp_tiny", "SRUppDecoder", "output_dropout"),
    ("srupp_tiny", "SRUppLayer", "attention_dropout"),
    ("srupp_tiny", "Recurrence", "dropout"),
    ("srupp_lm_tiny", "LMDecoder", "embedding_dropout"),
    ("srupp_lm_tiny adaptive", "TiedAdaptiveSoftmax", "output_dropout"),
    ("transformer_sru_tiny", "Recurrence", "sru_dropout"),
    ("transformer_sru_tiny", "TransformerSRUDecoderLayer", "dropout"),
    ("srupp_classifier", "SRUppClassifier", "output_dropout"),
])
def test_only_the_named_modules_drop(name, module, option, caplog):
    model = build(name, **{option: 0.5})
    prepare(model, True, f"{module},Other")
    assert any(vary(model))
    assert not caplog.records or "drops nothing" not in caplog.text
    other = build(name, **{option: 0.5})
    prepare(other, True, f"{module}s")
    assert not any(vary(other))
    assert f"--retain-dropout-modules {module}s: {type(model).__name__} has none" in caplog.text
    assert module in caplog.text.split("what it has:")[1]


def test_modules_without_dropout_to_retain_are_refused():
    with pytest.raises(UsageError, match="needs --retain-dropout"):
        prepare(build("srupp_tiny"), False, "SRUppLayer")


@pytest.mark.parametrize("name, option", [
    ("srupp_lm_tiny", "dropout"), ("sru_lm_tiny", "dropout"),
    ("transformer_sru_tiny", "sru_dropout")])
def test_a_sentence_has_one_mask_of_the_recurrence(name, option):
    """Token by token as in whole sentences, and when rows are reordered."""
    model = build(name, **{option: 0.5})
    prepare(model, True, "Recurrence")
    decoder = model.decoder
    tokens = torch.arange(4, 39).view(5, 7)
    encoded = None
    if hasattr(model, "encoder"):  # hypotheses of one source
        encoded = model.encoder(tokens[:1], torch.tensor([7]))
        encoded = model.encoder.reorder_encoder_out(encoded, torch.zeros(5, dtype=torch.long))
    state: dict = {}
    torch.manual_seed(1)
    whole = decoder(tokens, encoded)[0]
    torch.manual_seed(1)
    steps = [decoder(tokens[:, :n], encoded, incremental_state=state)[0] for n in range(1, 5)]
    order = torch.tensor([3, 0, 1, 4, 2])
    decoder.reorder_incremental_state_scripting(state, order)
    if encoded is not None:
        encoded = model.encoder.reorder_encoder_out(encoded, order)
    steps += [decoder(tokens[order, :n], encoded, incremental_state=state)[0][order.argsort()]
              for n in range(5, 8)]
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=0, atol=1e-5)


@pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")
@pytest.mark.parametrize("retained", [False, True])
def test_the_engine_steps_back(retained, caplog):
    model = build("srupp_tiny", dropout=0.1)
    prepare(model, retained)
    task = TranslationTask(TranslationConfig(), model.encoder.dictionary, model.decoder.dictionary)
    with caplog.at_level("INFO"):
        generator = task.build_generator([model], SimpleNamespace(beam=2))
    assert (type(generator).__name__ == "EngineGenerator") == (not retained)
    assert ("decoding by fairseq's search: --retain-dropout" in caplog.text) == retained
