"""Language models of the reference's train_enwik8, train_wt103 and train_lm1b scripts, and ours.

Their layers are SRU++ or, with :func:`sru_from_reference`, SRU, named as in version 3.

Theirs number the words as their vocabulary lists them. fairseq puts <s>, <pad>, </s> and <unk> in
front; of those that the vocabulary has not, a converted model never predicts any.
"""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any, Mapping, NamedTuple, Sequence

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqLanguageModel
from torch import Tensor

from fairseq_sru.convert.layout import (
    SAME,
    ConversionError,
    Entry,
    Layout,
    stack_entries,
    to_ours,
    to_theirs,
)
from fairseq_sru.models.language_model import SRULanguageModel, SRUppLanguageModel
from fairseq_sru.models.lm_config import LMConfig, SRULMConfig, SRUppLMConfig
from fairseq_sru.modules.recurrence import highway_scale

SPECIAL = {"<eos>": "</s>", "<S>": "</s>", "<UNK>": "<unk>"}  # theirs -> fairseq's
NEVER = -1e4  # output bias of a word that is not in the vocabulary; float16 can hold it
FIRST = "output_layer.out_layers.0."
TRANSPOSED = Layout(lambda t: t.t().contiguous(), lambda t: t.t())


class Vocabulary(NamedTuple):
    """Their words and where they are in fairseq's dictionary."""

    dictionary: Dictionary
    rows: Tensor  # (V,) index in the dictionary of every word of theirs

    @classmethod
    def read(cls, words: Sequence[str], dictionary: Dictionary | None = None) -> Vocabulary:
        """``words`` in their order, in a new dictionary or the given one.

        Raises:
            ConversionError: words that are empty, repeated, contain white space or are not in
                ``dictionary``; words of ``dictionary`` that are missing.
        """
        names = [SPECIAL.get(word, word) for word in words]
        wrong = sorted({repr(name) for name in names if name.split() != [name]})
        wrong += sorted(repr(name) for name, times in Counter(names).items() if times > 1)
        if dictionary is None:
            dictionary = Dictionary()
            for name in names:
                if name not in dictionary:
                    dictionary.add_symbol(name)
        else:
            wrong += [repr(name) for name in names if name not in dictionary]
            missing = set(dictionary.symbols[dictionary.nspecial:]) - set(names)
            wrong += sorted(map(repr, missing))
        if wrong:
            raise ConversionError(
                "the vocabulary must have every word once, without white space in it; wrong are "
                + ", ".join(wrong[:10]) + (", ..." if len(wrong) > 10 else ""))
        return cls(dictionary, torch.tensor([dictionary.index(name) for name in names]))

    @classmethod
    def whole(cls, dictionary: Dictionary) -> Vocabulary:
        """All entries of a dictionary in its order."""
        return cls(dictionary, torch.arange(len(dictionary)))

    def first_band(self, size: int) -> int:
        """Size in fairseq of the band that are their first ``size`` words.

        Raises:
            ConversionError: one of fairseq's special symbols is a rarer word.
        """
        rare = self.rows[size:] < self.dictionary.nspecial
        if rare.any():
            word = self.dictionary[int(self.rows[size:][rare][0])]
            raise ConversionError(f"{word} must be among the {size} most frequent words")
        return size + len(self.dictionary) - len(self.rows)

    def layout(self, size: int, fill: float) -> Layout:
        """Of their first ``size`` rows; fairseq's other rows are ``fill``."""
        rows = self.rows[:size]
        total = size + len(self.dictionary) - len(self.rows)

        def spread(tensor: Tensor) -> Tensor:
            return tensor.new_full((total, *tensor.shape[1:]), fill).index_copy(0, rows, tensor)

        return Layout(spread, lambda tensor: tensor.index_select(0, rows))


def from_reference(
    state: Mapping[str, Tensor], vocabulary: Vocabulary, num_heads: int = 1
) -> tuple[SRUppLanguageModel, SRUppLMConfig]:
    """Our model with the numbers of theirs, and its options.

    Args:
        num_heads: attention heads, of which a state dict says nothing.

    Raises:
        ConversionError: the state dict is not that of such a model.
    """
    shared = _infer_shared(
        state, vocabulary, "SRU++", "rnn.rnn_lst.0.transform_module.linear1.weight")
    cfg = SRUppLMConfig(**shared, **_infer_srupp(state, num_heads))
    return _build(SRUppLanguageModel, cfg, state, vocabulary), cfg


def sru_from_reference(
    state: Mapping[str, Tensor], vocabulary: Vocabulary
) -> tuple[SRULanguageModel, SRULMConfig]:
    """As :func:`from_reference`, of a model whose ``rnn`` is an SRU with a highway.

    A projection must be that of :func:`fairseq_sru.models.stack.build_sru_lm`: none in
    the first layer if the embedding is not wider.
    """
    shared = _infer_shared(state, vocabulary, "SRU", "rnn.rnn_lst.0.scale_x")
    cfg = SRULMConfig(**shared, **_infer_sru(state))
    return _build(SRULanguageModel, cfg, state, vocabulary), cfg


def load(model: FairseqLanguageModel, state: Mapping[str, Tensor], vocabulary: Vocabulary) -> None:
    """Fill ``model`` from a state dict of theirs; raises ConversionError if it does not fit."""
    scales = _scales(model)
    for name, scale in scales.items():
        if name in state and float(state[name]) != float(state[name].new_tensor(scale)):
            raise ConversionError(f"{name} is {float(state[name]):g}, not {scale:g}: language "
                                  "models with SRU++ do not rescale, with SRU all layers alike")
    parameters = dict(model.named_parameters())
    converted = to_ours(entries(model, vocabulary), _split(state),
                        _with_weight_c(model, parameters), frozenset(scales))
    for name in converted.keys() - parameters.keys():
        if converted.pop(name).any():
            raise ConversionError(f"the model has no {name}, but theirs is not zero")
    with torch.no_grad():
        for name, tensor in converted.items():
            parameters[name].copy_(tensor)


def to_reference(model: FairseqLanguageModel, vocabulary: Vocabulary) -> dict[str, Tensor]:
    """The state dict that theirs would have.

    A model without v * c gets zeros there.

    Raises:
        ConversionError: the model has parts that theirs cannot have.
    """
    scales = _scales(model)
    if isinstance(model, SRUppLanguageModel) and any(scale != 1.0 for scale in scales.values()):
        raise ConversionError("the reference's language models do not rescale the highway")
    if not all(layer.recurrence.highway for layer in model.decoder.stack.layers):
        raise ConversionError("the reference's state dict does not say that there is no highway")
    state = to_theirs(entries(model, vocabulary), _with_weight_c(model, model.state_dict()))
    like = next(iter(state.values()))
    return {**_join(state), **{name: like.new_tensor([s]) for name, s in scales.items()}}


def entries(model: FairseqLanguageModel, vocabulary: Vocabulary) -> list[Entry]:
    """Every parameter under both names.

    Raises:
        ConversionError: some have no name there.
    """
    decoder = model.decoder
    found = stack_entries(decoder.stack, "decoder.stack.", "rnn.")
    if decoder.adaptive_softmax is None:
        size = len(vocabulary.rows)
        rows, biases = vocabulary.layout(size, 0.0), vocabulary.layout(size, NEVER)
        found += [
            Entry("decoder.embed_tokens.weight", "embedding_layer.weight", rows),
            Entry("decoder.output_projection.weight", "output_layer.weight", rows),
            Entry("decoder.output_projection.bias", "output_layer.bias", biases),
        ]
    else:
        found += _adaptive_entries(model, vocabulary)
    without = {name for name, _ in model.named_parameters()} - {entry.ours for entry in found}
    if any(layer.post_norm is not None for layer in decoder.stack.layers):
        without.add("post-norm of layers")
    if without:
        raise ConversionError("the reference has no counterpart of " + ", ".join(sorted(without)))
    return found


def _adaptive_entries(model: FairseqLanguageModel, vocabulary: Vocabulary) -> list[Entry]:
    cutoff = model.decoder.adaptive_softmax.cutoff
    size = cutoff[0] - len(vocabulary.dictionary) + len(vocabulary.rows)
    vocabulary.first_band(size)
    reverse = Layout(lambda t: t.flip(0), lambda t: t.flip(0))
    embeddings, softmax = "decoder.embed_tokens.embeddings.", "decoder.adaptive_softmax."
    found = [
        Entry(f"{embeddings}0.0.weight", f"{FIRST}weight[words]", vocabulary.layout(size, 0.0)),
        Entry(f"{softmax}head.1.bias", f"{FIRST}bias[words]", vocabulary.layout(size, NEVER)),
        # their scores of the bands stand last to first
        Entry(f"{softmax}head.1.bands.weight", f"{FIRST}weight[bands]", reverse),
        Entry(f"{softmax}head.1.bands.bias", f"{FIRST}bias[bands]", reverse),
    ]
    for band in range(1, len(cutoff)):
        theirs = f"output_layer.out_layers.{band}."
        found.append(Entry(f"{embeddings}{band}.0.weight", f"{theirs}weight", SAME))
        found.append(Entry(f"{softmax}tail.{band - 1}.2.bias", f"{theirs}bias", SAME))
    own = dict(model.named_parameters())
    for band in range(len(cutoff)):
        embedding_proj = f"{embeddings}{band}.1.weight"
        output_proj = softmax + (f"tail.{band - 1}.0.weight" if band else "head.0.weight")
        found.append(Entry(embedding_proj, f"embedding_layer.emb_projs.{band}", SAME))
        tied = output_proj not in own
        found.append(Entry(embedding_proj if tied else output_proj,
                           f"output_layer.out_projs.{band}", SAME if tied else TRANSPOSED))
    return found


def _split(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their first output layer scores words, then bands: two tensors of ours."""
    state = dict(state)
    bands = _bands(state) - 1
    for name in ("weight", "bias"):
        if bands >= 0 and FIRST + name in state:
            both = state.pop(FIRST + name)
            state[f"{FIRST}{name}[words]"] = both[: len(both) - bands]
            state[f"{FIRST}{name}[bands]"] = both[len(both) - bands :]
    return state


def _join(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for name in ("weight", "bias"):
        if f"{FIRST}{name}[words]" in state:
            state[FIRST + name] = torch.cat([
                state.pop(f"{FIRST}{name}[words]"), state.pop(f"{FIRST}{name}[bands]")])
    return state


def _bands(state: Mapping[str, Tensor]) -> int:
    return sum(f"output_layer.out_layers.{i}.weight" in state for i in range(len(state)))


def _with_weight_c(model: FairseqLanguageModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` of the model, with zeros where it has no v * c: theirs always has."""
    tensors = dict(tensors)
    for i in range(len(model.decoder.stack.layers)):
        name = f"decoder.stack.layers.{i}.recurrence."
        tensors.setdefault(f"{name}weight_c", torch.zeros_like(tensors[f"{name}bias"]))
    return tensors


def _scales(model: FairseqLanguageModel) -> dict[str, float]:
    return {
        f"rnn.rnn_lst.{i}.scale_x": layer.recurrence.scale
        for i, layer in enumerate(model.decoder.stack.layers)
    }


def _infer_srupp(state: Mapping[str, Tensor], num_heads: int) -> dict[str, Any]:
    """The options of the SRU++ layers."""
    first, layers = "rnn.rnn_lst.0.transform_module.", _count_layers(state)
    attending = [
        str(i + 1) for i in range(layers) if f"rnn.rnn_lst.{i}.transform_module.alpha" in state]
    return dict(
        proj_size=state[f"{first}linear1.weight"].size(0),
        num_heads=num_heads,
        attention="all" if len(attending) == layers else ",".join(attending) or "none",
        no_attention_norm=f"{first}layer_norm.weight" not in state,
    )


def _infer_sru(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options of the SRU layers."""
    layers = _count_layers(state)
    proj = state.get(f"rnn.rnn_lst.{layers - 1}.transform_module.0.weight")
    gates = [state.get(f"rnn.rnn_lst.{i}.weight_c") for i in range(layers)]
    options = dict(
        proj_size=None if proj is None else proj.size(0),
        project_input="rnn.input_to_hidden.weight" in state,
        no_weight_c=all(v is not None and not v.any() for v in gates),
    )
    scale = state["rnn.rnn_lst.0.scale_x"]
    number = float(scale)
    if number == 1.0:
        return dict(options, no_rescale=True)
    if number < 1.0:
        raise ConversionError(f"rnn.rnn_lst.0.scale_x is {number:g}, which no highway bias gives")
    exact = math.log((number**2 - 1) / 2)
    rounded = round(exact, 4)  # what someone chose, if it gives the same number
    same = number == float(scale.new_tensor(highway_scale(rounded)))
    return dict(options, highway_bias=rounded if same else exact)


def _count_layers(state: Mapping[str, Tensor]) -> int:
    return sum(f"rnn.rnn_lst.{i}.bias" in state for i in range(len(state)))


def _infer_shared(
    state: Mapping[str, Tensor], vocabulary: Vocabulary, kind: str, needed: str
) -> dict[str, Any]:
    """The options that do not depend on the ``kind`` of layers, which have a tensor ``needed``."""
    bands = _bands(state)
    embedding = FIRST + "weight" if bands else "embedding_layer.weight"
    bias = "rnn.rnn_lst.0.bias"
    missing = [name for name in (embedding, bias, needed) if name not in state]
    if missing:
        raise ConversionError(f"no {kind} language model of the reference: it has no "
                              + ", ".join(missing))
    options: dict[str, Any] = dict(
        embed_dim=state[embedding].size(1),
        hidden_size=state[bias].numel() // 2,
        layers=_count_layers(state),
        dropout=0.0,  # of which a state dict says nothing
        layer_norm="pre" if "rnn.rnn_lst.0.layer_norm.weight" in state else "none",
    )
    sizes = [len(state[embedding]) - max(0, bands - 1)]
    sizes += [len(state[f"output_layer.out_layers.{i}.weight"]) for i in range(1, bands)]
    if sum(sizes) != len(vocabulary.rows):
        raise ConversionError(f"the vocabulary has {len(vocabulary.rows)} words, the model "
                              f"{sum(sizes)}")
    if bands:
        if bands == 1:
            raise ConversionError("an adaptive softmax without rare words is not supported")
        ends = torch.tensor(sizes).cumsum(0) + vocabulary.first_band(sizes[0]) - sizes[0]
        second = state["output_layer.out_layers.1.weight"].size(1)
        options.update(
            adaptive_cutoff=",".join(str(end) for end in ends[:-1].tolist()),
            adaptive_factor=float(math.floor(options["embed_dim"] / second)),
            tie_adaptive_proj=all(
                torch.equal(state.get(f"embedding_layer.emb_projs.{i}", torch.empty(0)),
                            state.get(f"output_layer.out_projs.{i}", torch.empty(1)))
                for i in range(bands)),
        )
    return options


def _build(
    model: type[FairseqLanguageModel], cfg: LMConfig, state: Mapping[str, Tensor],
    vocabulary: Vocabulary,
) -> FairseqLanguageModel:
    built = model.build_model(cfg, SimpleNamespace(target_dictionary=vocabulary.dictionary))
    built.to(next(iter(state.values())).dtype)
    load(built, state, vocabulary)
    return built
