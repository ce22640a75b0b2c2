"""fairseq generates by the engine of ``fairseq_sru.inference`` where that can do what is asked."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace as change
from typing import Any

import torch
from fairseq import options
from fairseq.search import BeamSearch, Sampling
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_sru.errors import UsageError
from fairseq_sru.inference import PRECISIONS, Engine, GenerationOptions, Hypothesis, read_model
from fairseq_sru.inference.weights import unsupported
from fairseq_sru.ops.extension import COMPILED, uncompiled
from fairseq_sru.repairs.patching import replace

logger = logging.getLogger(__name__)
OFF = "off"


class _Choice(argparse.Action):
    """--srupp-engine: what fairseq's configuration has no place for."""

    chosen = "float32"

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        _Choice.chosen = values
        setattr(namespace, self.dest, values)


def use_engine() -> None:
    """Let every fairseq command that generates take the engine, and offer --srupp-engine."""

    @replace(options, "add_generation_args")
    def add_generation_args(original: Any, parser: Any) -> Any:
        group = original(parser)
        group.add_argument(
            "--srupp-engine", action=_Choice, choices=[*PRECISIONS, OFF], default=_Choice.chosen,
            help="precision of fairseq_sru's own decoding, on a CPU and where it can do what is "
                 "asked; off: fairseq's search")
        return group

    @replace(FairseqTask, "build_generator")
    def build_generator(original: Any, self: Any, models: Any, args: Any, *rest: Any,
                        **more: Any) -> Any:
        generator = original(self, models, args, *rest, **more)
        if not any(_is_ours(model) for model in models):
            return generator
        reason = _why_not(models, args, generator)
        _say(reason)
        return generator if reason else EngineGenerator(models, generator, args)


def _is_ours(model: Any) -> bool:
    return type(model).__module__.startswith("fairseq_sru.")


def _say(reason: str | None) -> None:
    logger.info(f"decoding by fairseq's search: {reason}" if reason else
                f"decoding by fairseq_sru's engine in {_Choice.chosen}")


def _why_not(models: list[Any], args: Any, generator: Any) -> str | None:
    """Why fairseq's search has to do it; None if the engine can."""
    if _Choice.chosen == OFF:
        return "--srupp-engine off"
    if not COMPILED:
        return uncompiled()
    if len(models) > 1:
        return "an ensemble of models"
    if not _on_cpu(models[0]):
        return "the model is not on a CPU"
    if any(getattr(part, "retain_dropout", False) for part in models[0].modules()):
        return "--retain-dropout"
    if type(generator) is not SequenceGenerator:
        return "scores or alignments are wanted"
    if generator.lm_model is not None:
        return "--lm-path"
    if type(generator.search) not in (BeamSearch, Sampling):
        return f"the search is {type(generator.search).__name__}"
    if getattr(args, "no_repeat_ngram_size", 0) == 1:
        return "--no-repeat-ngram-size 1"
    if generator.beam_size >= generator.vocab_size - 1:
        return "a beam as large as the vocabulary"
    if generator.symbols_to_strip_from_output != {models[0].decoder.dictionary.eos()}:
        return "another end of the sentence, or symbols to strip from the output"
    if generator.token_indices_to_suppress is not None:
        return "tokens to suppress"
    return unsupported(models[0])


def _on_cpu(model: Any) -> bool:
    return all(p.device.type == "cpu" for p in model.parameters())


class EngineGenerator:
    """In place of fairseq's SequenceGenerator ``generator``, whose options it takes.

    Args:
        models: the model, which may change between two calls of :meth:`generate`: validation
            generates with the model that is being trained.
        args: of the generation, fairseq's GenerationConfig or the command's.
    """

    def __init__(self, models: list[Any], generator: Any, args: Any) -> None:
        self.symbols_to_strip_from_output = generator.symbols_to_strip_from_output
        self._model = models[0]
        self._fairseqs = generator
        self._precision = _Choice.chosen
        self._engine: Engine
        self._packed: dict[str, Tensor] = {}  # the parameters that the engine has
        self._translates = hasattr(self._model, "encoder")
        self._pad = generator.pad
        search = generator.search
        sampling = isinstance(search, Sampling)
        top_k = search.sampling_topk if sampling else -1
        top_p = search.sampling_topp if sampling else -1.0
        self._options = GenerationOptions(
            beam=generator.beam_size,
            nbest=generator.beam_size,
            max_len_a=generator.max_len_a,
            max_len_b=generator.max_len_b,
            max_len=generator.max_len,
            min_len=generator.min_len,
            lenpen=generator.len_penalty,
            unkpen=generator.unk_penalty,
            unnormalized=not generator.normalize_scores,
            temperature=generator.temperature,
            no_repeat_ngram_size=getattr(args, "no_repeat_ngram_size", 0),
            sampling=sampling,
            sampling_topk=top_k if top_k > 0 else None,
            sampling_topp=top_p if top_p > 0 else None,
            align=self._translates,
        )

    def cuda(self) -> EngineGenerator:
        self._fairseqs.cuda()
        return self

    @torch.no_grad()
    def generate(
        self,
        models: list[Any],
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
        bos_token: int | None = None,
    ) -> list[list[dict[str, Tensor]]]:
        """As SequenceGenerator.generate; ``models`` are those it was built of.

        Args:
            sample: a batch whose net_input has src_tokens (B, S), padded left or right.
            prefix_tokens: (B, P), padded right.
        """
        if constraints is not None or not _on_cpu(self._model):
            return self._fairseqs.generate(
                models, sample, prefix_tokens=prefix_tokens, constraints=constraints,
                bos_token=bos_token)
        engine = self._current_engine()
        tokens = sample["net_input"]["src_tokens"]
        # fairseq's limit is that of the whole batch
        longest = int(self._options.max_len_a * tokens.size(1) + self._options.max_len_b)
        try:
            options = change(
                self._options, max_len_a=0.0, max_len_b=longest, bos=bos_token,
                seed=int(torch.randint(2**63 - 1, ())) if self._options.sampling else 0)
        except ValueError as error:
            raise UsageError(f"--{str(error).replace('_', '-')}") from error
        prefixes = None if prefix_tokens is None else [self._real(row) for row in prefix_tokens]
        if self._translates:
            found = engine.translate([self._real(row) for row in tokens], options, prefixes)
        else:
            found = engine.generate(prefixes or [tokens.new_zeros(0)] * len(tokens), options)
        return [
            [
                {
                    "tokens": hypothesis.tokens,
                    "score": torch.tensor(hypothesis.score),
                    "attention": self._attention(hypothesis, row),
                    "alignment": torch.empty(0),
                    "positional_scores": hypothesis.token_scores,
                }
                for hypothesis in best
            ]
            for row, best in zip(tokens, found)
        ]

    def _current_engine(self) -> Engine:
        """Of the model's parameters as they are now."""
        state = self._model.state_dict()
        if not _equal(state, self._packed):
            self._engine = Engine(read_model(self._model, self._precision))
            self._packed = {name: tensor.clone() for name, tensor in state.items()}
        return self._engine

    def _attention(self, hypothesis: Hypothesis, row: Tensor) -> Tensor:
        """To the source ``row``, padding included, (S, T); (0,) where there is none."""
        if hypothesis.alignment is None:
            return torch.empty(0)
        attention = torch.zeros(len(row), len(hypothesis.tokens))
        attention[row.ne(self._pad)] = hypothesis.alignment.t()
        return attention

    def _real(self, row: Tensor) -> Tensor:
        return row[row.ne(self._pad)]


def _equal(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(
        tensor.dtype == other[name].dtype and torch.equal(tensor, other[name])
        for name, tensor in state.items())
