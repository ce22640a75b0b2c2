"""What the engine needs of a trained model: tensors of one precision, sizes and options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_sru.modules import Stack

PRECISIONS = ("float32", "bfloat16", "int8")


@dataclass
class ModelWeights:
    """A model for inference.

    Attributes:
        config: sizes and options, of JSON's types.
        tensors: by the names of the model's state dict. Matrices are of ``precision``, or with
            int8 integers beside their ``scale`` (outputs,), what multiplies them; the rest is
            float32.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of ``encoder`` or ``decoder``, without that prefix."""
        return {
            key[len(name) + 1 :]: tensor
            for key, tensor in self.tensors.items() if key.startswith(f"{name}.")
        }


def read_model(model: Any, precision: str = "float32") -> ModelWeights:
    """A copy of the weights of an SRUppModel, SRUppLanguageModel or SRULanguageModel.

    Args:
        precision: one of :data:`PRECISIONS`.

    Raises:
        ValueError: an unknown precision, or a model that the engine does not run.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    problem = unsupported(model)
    if problem is not None:
        raise ValueError(problem)
    decoder: Any = model.decoder
    encoder: Any = getattr(model, "encoder", None)
    dictionary = decoder.dictionary
    config = {
        "precision": precision,
        "vocabulary": len(dictionary),
        "pad": dictionary.pad(),
        "unk": dictionary.unk(),
        "eos": dictionary.eos(),
        "decoder": _decoder_options(decoder),
    }
    tensors = _read(decoder, "decoder", precision)
    if encoder is not None:
        config["encoder"] = {
            "stack": _stack_options(encoder.stack),
            "vocabulary": encoder.embed_tokens.num_embeddings,
            "pad": encoder.padding_idx,
            "embed_scale": encoder.embed_scale,
            "output_norm": encoder.output_norm is not None,
        }
        tensors.update(_read(encoder, "encoder", precision))
    return ModelWeights(config, tensors)


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (outputs, inputs) as int8 from -127 to 127 and the scale (outputs,) of each output's:
    its largest weight becomes 127."""
    scale = weight.abs().amax(1) / 127
    return (weight / scale.clamp_min(2.0**-100).unsqueeze(1)).round().to(torch.int8), scale


def unsupported(model: Any) -> str | None:
    """Why the engine does not run a model; None if it does."""
    problem = _problem(getattr(model, "encoder", None), getattr(model, "decoder", None))
    return problem and f"the engine does not run {type(model).__name__}: {problem}"


def _problem(encoder: Any, decoder: Any) -> str | None:
    stack = getattr(decoder, "stack", None)
    if stack is None or (encoder is not None and not hasattr(encoder, "stack")):
        return "it has no stack of SRU or SRU++ layers"
    if not isinstance(decoder.embed_tokens, nn.Embedding):
        return "adaptive embeddings"
    if decoder.embed_tokens.num_embeddings != len(decoder.dictionary):
        return "--output-dictionary-size"
    if any(layer.recurrence.tanh for layer in stack.layers):
        return "tanh in the recurrence"
    return None


def _decoder_options(decoder: Any) -> dict[str, Any]:
    """As the C++ Decoder takes them; see csrc/decoder.h."""
    window = getattr(decoder, "generation_context", None)
    layer = decoder.stack.layers[0]
    return {
        "heads": getattr(layer, "num_heads", 1),
        "highway": int(layer.recurrence.highway),
        "scale": layer.recurrence.scale,
        "embed_scale": getattr(decoder, "embed_scale", 1.0),
        "norm_eps": nn.LayerNorm(1).eps,
        "window": -1 if window is None else window,
    }


def _stack_options(stack: Stack) -> dict[str, Any]:
    """With which SRUpp builds such layers."""
    layers = stack.layers
    first, recurrence = layers[0], layers[0].recurrence
    placement = [("pre", first.pre_norm), ("post", first.post_norm)]
    return {
        "input_size": stack.input_size,
        "hidden_size": stack.output_size // (2 if recurrence.bidirectional else 1),
        "proj_size": first.q_proj.out_features,
        "num_layers": len(layers),
        "attention": [i for i, layer in enumerate(layers, 1) if layer.attends] or "none",
        "num_heads": first.num_heads,
        "bidirectional": recurrence.bidirectional,
        "project_input": stack.input_proj is not None,
        "attention_norm": first.attn_norm is not None,
        "layer_norm": next((name for name, norm in placement if norm is not None), None),
        "highway": recurrence.highway,
        "highway_bias": recurrence.highway_bias,
        "rescale": recurrence.scale != 1.0,
        "weight_c": recurrence.weight_c is not None,
    }


def _read(module: Any, prefix: str, precision: str) -> dict[str, Tensor]:
    """The parameters of an encoder or a decoder; an output that is tied to the embedding is left
    out."""
    tied = getattr(module, "output_projection", None)
    tied = tied is not None and tied.weight is module.embed_tokens.weight
    matrices = {
        f"{name}.weight" for name, part in module.named_modules()
        if isinstance(part, (nn.Linear, nn.Embedding))
    }
    tensors = {}
    for name, tensor in module.state_dict().items():
        if name == "version" or (tied and name == "output_projection.weight"):
            continue
        tensor = tensor.detach().to(
            torch.float32, copy=True, memory_format=torch.contiguous_format)
        if name in matrices and precision == "int8":
            tensor, tensors[f"{prefix}.{name[: -len('weight')]}scale"] = quantise(tensor)
        elif name in matrices:
            tensor = tensor.to(getattr(torch, precision))
        tensors[f"{prefix}.{name}"] = tensor
    return tensors
