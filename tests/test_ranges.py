"""Every number of every option has a range, and a value outside is one line, wherever it is from.

What sees nothing does not see everything.
"""

import argparse
import inspect
import math
from dataclasses import MISSING, fields
from numbers import Integral
from types import SimpleNamespace
from typing import List, Optional

import pytest
import torch
from fairseq import criterions, models, options, tasks
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf, gen_parser_from_dataclass
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from fairseq.trainer import Trainer
from omegaconf import OmegaConf

import fairseq_sru
from fairseq_sru import ranges
from fairseq_sru.errors import UsageError
from fairseq_sru.inference import GenerationOptions
from fairseq_sru.modules import SRU, SRULayer, SRUpp, SRUppLayer
from fairseq_sru.modules.recurrence import Recurrence
from fairseq_sru.modules.stack import Stack
from fairseq_sru.ops import (
    attention,
    attention_mask,
    dropout,
    recurrence,
    recurrence_tanh,
    step_attention,
)
from fairseq_sru.ranges import RANGES
from fairseq_sru.state import StreamMemory

fairseq_sru.register()

NAN, INF = math.nan, math.inf
OUTSIDE = {
    ranges.SIZE: [0, -1, 10**30, 1.5, True],
    ranges.COUNT: [-1, 10**30, 0.5],
    ranges.PROBABILITY: [-0.1, 1.0, 1.5, NAN, INF],
    ranges.SHARE: [0.0, -0.5, 1.1, NAN],
    ranges.POSITIVE: [0.0, -1.0, NAN, INF, 1e39],
    ranges.NOT_NEGATIVE: [-1e-9, NAN, INF, 1e39],
    ranges.FINITE: [NAN, INF, -INF, 1e39],
    ranges.TEMPERATURE: [0.0, -1.0, 1e-38, NAN, INF, 1e39],
    ranges.FLAG: [0, 1, 0.0],
    ranges.EXPONENT: [NAN, INF, 100.0, -1000.0],
    ranges.RATES: [[-1.0], [NAN], [1e-3, INF]],
    ranges.BETAS: ["(0.9, 1.0)", "(-0.1, 0.9)", "(0.9, nan)", "(0.9,)", "0.9"],
}


def dictionary() -> Dictionary:
    words = Dictionary()
    for number in range(20):
        words.add_symbol(f"w{number}")
    return words


TASK = SimpleNamespace(
    source_dictionary=dictionary(), target_dictionary=dictionary(), dictionary=dictionary())
LOSS = SimpleNamespace(target_dictionary=dictionary())
#: of a dataclass registered under that name, an object of its options
BUILD = {
    **{("model", name): lambda cfg: models.build_model(cfg, TASK)
       for name in ("srupp", "srupp_lm", "sru_lm", "sru_classifier", "srupp_classifier")},
    ("task", "srupp_language_modeling"): lambda cfg: tasks.TASK_REGISTRY[
        "srupp_language_modeling"](cfg, dictionary()),
    ("optimizer", "radam"): lambda cfg: REGISTRIES["optimizer"]["registry"]["radam"](
        cfg, [torch.nn.Parameter(torch.zeros(2))]),
    **{("criterion", name): lambda cfg: criterions.build_criterion(cfg, LOSS)
       for name in ("r_drop", "simcut", "fused_label_smoothed_cross_entropy")},
}
REGISTERED = {
    **{("model", name): kind for name, kind in MODEL_DATACLASS_REGISTRY.items()},
    **{("task", name): kind for name, kind in TASK_DATACLASS_REGISTRY.items()},
    **{(registry, name): kind for registry in ("optimizer", "criterion")
       for name, kind in REGISTRIES[registry]["dataclass_registry"].items()},
}
OURS = {key: kind for key, kind in REGISTERED.items()
        if kind is not None and kind.__module__.startswith("fairseq_sru.")}
NUMBERS = (int, float, Optional[int], Optional[float], List[float])
CASES = [
    (key, option.name) for key, kind in OURS.items() for option in fields(kind)
    if option.type in NUMBERS or RANGES.get(option.name, ranges.FLAG) is not ranges.FLAG]


def ids(case):
    return "-".join(case[0]) + "-" + case[1]


def small(key) -> dict:
    """Options of a small model, and values for what other parts of a command would give."""
    given = {"_name": key[1]} if key[0] in ("model", "criterion") else {}
    sizes = dict(embed_dim=8, hidden_size=8, proj_size=4, layers=2, encoder_layers=1,
                 decoder_layers=1)
    known = {option.name for option in fields(OURS[key])}
    given.update({name: size for name, size in sizes.items() if name in known})
    for option in fields(OURS[key]):
        if isinstance(option.default, str) and option.default.startswith("${"):
            given[option.name] = {"lr": [1e-3], "sentence_avg": False}.get(option.name)
    return given


def test_every_dataclass_of_options_is_built_here():
    assert OURS.keys() == BUILD.keys()


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_every_number_has_a_range_and_a_possible_default(case):
    (_, name), kind = case, OURS[case[0]]
    assert name in RANGES
    default = next(option.default for option in fields(kind) if option.name == name)
    if default is not None and default is not MISSING and not isinstance(default, str):
        assert default in RANGES[name]


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_values_outside_are_one_line(case):
    key, name = case
    for value in OUTSIDE[RANGES[name]]:
        if value is True or RANGES[name].kind is Integral and isinstance(value, float):
            continue  # omegaconf's own error
        config = SimpleNamespace(**{
            **{option.name: option.default for option in fields(OURS[key])},
            **small(key), name: value})
        with pytest.raises(UsageError, match=f"^--{name.replace('_', '-')} must be "):
            BUILD[key](OmegaConf.create(vars(config)) if key[0] != "optimizer" else config)


@pytest.mark.parametrize("key", BUILD, ids="-".join)
def test_the_small_options_are_possible(key):
    config = {**{option.name: option.default for option in fields(OURS[key])}, **small(key)}
    BUILD[key](OmegaConf.create(config))


@pytest.mark.parametrize("case", [
    case for case in CASES if case[0][0] in ("model", "task") and case[1] != "lr"], ids=ids)
def test_text_outside_is_one_line(case):
    """What argparse makes of text reaches the same check."""
    key, option = case
    value = next(v for v in OUTSIDE[RANGES[option]] if not isinstance(v, bool))
    flag = f"--{option.replace('_', '-')}"
    parser = argparse.ArgumentParser()
    gen_parser_from_dataclass(parser, OURS[key]())
    positional = ["data"] if key[0] == "task" else []
    config = OURS[key].from_namespace(parser.parse_args([*positional, f"{flag}={value}"]))
    with pytest.raises(UsageError, match=f"^{flag} must be "):
        BUILD[key](OmegaConf.create({
            **vars(config), **small(key), option: getattr(config, option)}))


@pytest.mark.parametrize("arch", [
    "srupp_tiny", "srupp_lm_tiny", "sru_lm_tiny", "sru_classifier_tiny", "srupp_classifier"])
def test_the_command_line_refuses_them(arch):
    command = ["data", "--task", "srupp_language_modeling", "--arch", arch, "--dropout=1.5"]
    args = options.parse_args_and_arch(options.get_training_parser(), command)
    with pytest.raises(UsageError, match="^--dropout must be "):
        models.build_model(convert_namespace_to_omegaconf(args).model, TASK)


@pytest.mark.parametrize("option", ["sru_dropout", "dropout", "encoder_layers", "decoder_layers"])
def test_the_transformer_refuses_them(option):
    args = SimpleNamespace(arch="transformer_sru_tiny", **{option: -1})
    models.ARCH_CONFIG_REGISTRY["transformer_sru_tiny"](args)
    with pytest.raises(UsageError, match=f"^--{option.replace('_', '-')} must be "):
        models.ARCH_MODEL_REGISTRY["transformer_sru_tiny"].build_model(args, TASK)


@pytest.mark.parametrize("option", [
    "--batch-size", "--max-tokens", "--batch-size-valid", "--max-tokens-valid"])
@pytest.mark.parametrize("value", ["0", "-3"])
def test_sizes_of_batches(option, value):
    parser = options.get_training_parser()
    with pytest.raises(UsageError, match=f"^{option} must be a whole number, at least 1"):
        options.parse_args_and_arch(
            parser, ["data", "--task", "translation", "--arch", "srupp_tiny", option, value])


MODULES = {
    Recurrence: dict(input_size=4, output_size=4),
    SRULayer: dict(input_size=4, hidden_size=4),
    SRUppLayer: dict(input_size=4, hidden_size=4, proj_size=4),
    SRU: dict(input_size=4, hidden_size=4),
    SRUpp: dict(input_size=4, hidden_size=4, proj_size=4),
    GenerationOptions: {},
}


def module_options(kind):
    """Names and defaults in the signature, and of what a stack or layer hands on."""
    kinds = {
        SRULayer: [Recurrence],
        SRUppLayer: [Recurrence],
        SRU: [Recurrence, SRULayer, Stack],
        SRUpp: [Recurrence, SRUppLayer, Stack],
    }.get(kind, [])
    options = {name: option.default for each in [*kinds, kind]
               for name, option in inspect.signature(each).parameters.items()}
    handed = {"output_size"} if kinds else set()
    if kind is SRUpp:
        handed |= {"recurrence_dropout"}
    return {name: options[name] for name in sorted(options.keys() & RANGES.keys() - handed)}


@pytest.mark.parametrize("kind, name", [
    (kind, name) for kind in MODULES for name in module_options(kind)])
def test_modules_refuse_values_outside(kind, name):
    assert kind(**MODULES[kind])
    for value in [*OUTSIDE[RANGES[name]], None, torch.tensor(1.0), 1j, "1", "no"]:
        if value is None and module_options(kind)[name] is None:
            continue
        if kind in (SRU, SRULayer) and name == "proj_size" and value == 0:
            continue  # no projection
        one_layer = {"num_layers": 1} if kind in (SRU, SRUpp) else {}
        for sizes in (MODULES[kind], {**MODULES[kind], **one_layer}):
            with pytest.raises(ValueError, match=f"^{name} must be "):
                kind(**{**sizes, name: value})


def test_every_flag_has_its_range():
    """Every option of modules whose default is True or False."""
    for kind in MODULES:
        flags = {name for name, option in inspect.signature(kind).parameters.items()
                 if isinstance(option.default, bool)}
        assert flags - {"attention"} <= module_options(kind).keys()
    with pytest.raises(ValueError, match="^attention of a layer must be True or False"):
        SRUppLayer(4, 4, 4, attention="none")


@pytest.mark.parametrize("flag", ["causal", "projected"])
@pytest.mark.parametrize("placement", ["all", "none"])
def test_reading_refuses_what_is_no_flag(flag, placement):
    for value in ("no", 1, None):
        with pytest.raises(ValueError, match=f"^{flag} must be True or False"):
            SRUpp(4, 4, 4, attention=placement)(torch.zeros(3, 2, 4), **{flag: value})


def test_layers_that_attend_are_whole_numbers():
    for wrong in ([1.5], [True], ["1"], [0], [3], None, 1):
        with pytest.raises(ValueError, match="^attention "):
            SRUpp(4, 4, 4, 2, attention=wrong)


def tensors():
    return torch.zeros(3, 2, 3, 4), torch.zeros(3, 2, 4), torch.zeros(2, 4), torch.zeros(2, 4)


@pytest.mark.parametrize("name", ["x", "weight_c", "bias", "c0", "mask_c"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
def test_the_recurrence_refuses_other_numbers(name, dtype):
    u, x, weight_c, bias = tensors()
    given = dict(u=u, x=x, weight_c=weight_c, bias=bias, c0=torch.zeros(2, 4),
                 mask_c=torch.zeros(2, 4))
    for function in (recurrence, recurrence_tanh):
        with pytest.raises(ValueError, match=f"^{name} must be a floating point tensor"):
            function(**{**given, name: given[name].to(dtype)})


@pytest.mark.parametrize("scale", [NAN, INF, torch.tensor(1.0, requires_grad=True)])
def test_the_scale_is_a_number_without_gradient(scale):
    for function in (recurrence, recurrence_tanh):
        with pytest.raises(ValueError, match="^scale must be a finite number"):
            function(*tensors(), scale=scale)


@pytest.mark.parametrize("p", [-0.1, 1.5, NAN])
def test_dropout_refuses_what_is_no_probability(p):
    for training in (False, True):
        with pytest.raises(ValueError, match="between 0 and 1"):
            dropout(torch.ones(3), p, training)


def test_negative_contexts():
    with pytest.raises(ValueError, match="^window must be"):
        attention_mask(4, causal=True, window=-1)
    for placement in "all", "none":
        with pytest.raises(ValueError, match="^window must be"):
            SRUpp(4, 4, 4, attention=placement)(torch.zeros(3, 2, 4), causal=True, window=-1)
    with pytest.raises(ValueError, match="^window must be"):
        SRUpp(4, 4, 4).start(2, window=-1)
    with pytest.raises(ValueError, match="^eval_context must be"):
        StreamMemory(4, -1)


@pytest.mark.parametrize("rows", [0, -1, 1.5])
def test_decoding_needs_rows(rows):
    with pytest.raises(ValueError, match="^rows must be a whole number, at least 1"):
        SRUpp(4, 4, 4).start(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("kind", ["bool", "float", "infinite"])
def test_what_sees_nothing_gets_zeros(kind, need_weights, dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 4, dtype=dtype, requires_grad=True) for _ in range(3))
    seen = torch.tensor([[True, False, False], [False, False, False], [True, True, True]])
    mask = seen
    if kind != "bool":
        lowest = -INF if kind == "infinite" else torch.finfo(dtype).min
        mask = torch.zeros(3, 3, dtype=dtype).masked_fill(~seen, lowest)
    out, weights = attention(q, k, v, mask, need_weights=need_weights)
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    assert not out[1].any() and out[0].any() and out[2].any()
    assert not grads[0][1].any()
    assert all(t.isfinite().all() for t in (out, *grads))
    if weights is not None:
        assert not weights[:, :, 1].any()


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_step_that_sees_nothing_is_the_query(need_weights):
    q, cache = torch.randn(1, 2, 4), torch.randn(1, 3, 8)
    mask = torch.full((1, 1, 2, 3), torch.finfo(torch.float32).min / 2)
    mask[0, 0, 1, 0] = 0
    y, _ = step_attention(q, cache, mask, torch.ones(1), need_weights=need_weights)
    assert torch.equal(y[0, 0], q[0, 0]) and not torch.equal(y[0, 1], q[0, 1])


def lm_options(**changes):
    return OmegaConf.create({
        **{option.name: option.default for option in fields(OURS["model", "srupp_lm"])},
        **small(("model", "srupp_lm")), **changes})


@pytest.mark.parametrize("factor", [100.0, 1e-5])
def test_adaptive_bands_have_channels(factor):
    with pytest.raises(UsageError, match="--adaptive-factor"):
        models.build_model(lm_options(adaptive_cutoff="5,10", adaptive_factor=factor), TASK)


@pytest.mark.parametrize("cutoff", [None, "5"])
@pytest.mark.parametrize("loss", ["adaptive_loss", "cross_entropy"])
def test_softmax_and_criterion_fit(loss, cutoff):
    command = ["data", "--task", "srupp_language_modeling", "--arch", "srupp_lm_tiny", "--cpu",
               "--criterion", loss, "--ddp-backend", "legacy_ddp", "--optimizer", "radam"]
    config = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), command))
    task = tasks.TASK_REGISTRY["srupp_language_modeling"](config.task, dictionary())
    model = models.build_model(lm_options(adaptive_cutoff=cutoff), TASK)
    criterion = criterions.build_criterion(config.criterion, task)
    if (cutoff is None) == (loss == "cross_entropy"):
        Trainer(config, task, model, criterion)
        return
    with pytest.raises(UsageError, match="--criterion adaptive_loss"):
        Trainer(config, task, model, criterion)


def test_adaptive_loss_names_the_backend_it_needs():
    command = ["data", "--task", "srupp_language_modeling", "--arch", "srupp_lm_tiny",
               "--criterion", "adaptive_loss"]
    config = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), command))
    with pytest.raises(UsageError, match="--ddp-backend legacy_ddp"):
        criterions.build_criterion(config.criterion, LOSS)
