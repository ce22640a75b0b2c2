"""Language modelling on continuous streams, with memory from segment to segment."""

from __future__ import annotations

import logging
import os
from itertools import islice
from typing import Any

from fairseq import utils
from fairseq.data import Dictionary, data_utils
from fairseq.logging import metrics
from fairseq.tasks.language_modeling import LanguageModelingTask

from fairseq_sru.errors import UsageError
from fairseq_sru.options import check_config
from fairseq_sru.registry import register_task
from fairseq_sru.repairs.launches import require_one_shard
from fairseq_sru.state import StreamMemory
from fairseq_sru.tasks.dynamic_evaluation import DynamicEvaluation, Learner
from fairseq_sru.tasks.stream_config import StreamLanguageModelingConfig
from fairseq_sru.tasks.streams import StreamBatchIterator, Streams, Text

logger = logging.getLogger(__name__)

# of the training text, on which dynamic evaluation measures gradients
MEASURED_STREAMS = 20


@register_task("srupp_language_modeling", dataclass=StreamLanguageModelingConfig)
class StreamLanguageModelingTask(LanguageModelingTask):
    """Cut a text into --batch-size streams; a batch is the next segment of each.

    A model is given the memory of its streams and carries cells and layer inputs in it. Every
    epoch and every evaluation begins without memory and has its own.

    Raises:
        UsageError: impossible options.
    """

    def __init__(self, args: Any, dictionary: Dictionary) -> None:
        check_config(args, StreamLanguageModelingConfig)
        super().__init__(args, dictionary)
        self._models: list[Any] = []

    @classmethod
    def setup_task(cls, args: Any, **kwargs: Any) -> StreamLanguageModelingTask:
        folder = utils.split_paths(args.data)[0]
        return cls(args, Dictionary.load(os.path.join(folder, "dict.txt")))

    def load_dataset(
        self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any
    ) -> None:
        """Load the lines of a split.

        Raises:
            UsageError: there are none.
        """
        paths = utils.split_paths(self.args.data)
        path = os.path.join(paths[(epoch - 1) % len(paths)], split)
        lines = data_utils.load_indexed_dataset(
            path, self.dictionary, self.args.dataset_impl, combine=combine)
        if lines is None:
            raise UsageError(f"{path}.bin and .idx do not exist: give a folder written by "
                             "fairseq-preprocess --only-source, or name another subset")
        self.datasets[split] = Text(lines, lines.sizes, split == self.args.train_subset)

    def get_batch_iterator(
        self,
        dataset: Any,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        epoch: int = 1,
        data_buffer_size: int = 0,
        skip_remainder_batch: bool = False,
        max_positions: Any = None,
        **others: Any,
    ) -> Any:
        """Segments of ``max_sentences`` streams, or of as many as ``max_tokens`` has room for.

        Raises:
            UsageError: a segment has more than ``max_positions`` tokens.
        """
        if not isinstance(dataset, Text):  # sentences to continue, in fairseq-interactive
            return super().get_batch_iterator(
                dataset, max_tokens, max_sentences, max_positions, num_shards=num_shards,
                shard_id=shard_id, num_workers=num_workers, epoch=epoch,
                data_buffer_size=data_buffer_size,
                skip_remainder_batch=skip_remainder_batch, **others)
        train_segment = self.args.tokens_per_sample
        segment = train_segment if dataset.training else self._or_train(self.args.eval_segment)
        if isinstance(max_positions, int) and segment > max_positions:
            raise UsageError(
                f"segments of {segment} tokens are longer than --max-target-positions "
                f"{max_positions}: lower --tokens-per-sample or --eval-segment, or leave it out, "
                "the model has no limit")
        return self._segments(
            dataset,
            max(1, (max_tokens or 0) // segment) if max_sentences is None else max_sentences,
            segment,
            num_shards,
            shard_id,
            num_workers=num_workers,
            epoch=epoch,
            buffer_size=data_buffer_size,
            skip_remainder_batch=skip_remainder_batch,
        )

    def _segments(
        self,
        text: Text,
        streams: int,
        segment: int,
        num_shards: int = 1,
        shard_id: int = 0,
        **others: Any,
    ) -> StreamBatchIterator:
        return StreamBatchIterator(
            Streams(
                text, streams, segment, self.dictionary.pad(), self.dictionary.eos(),
                num_shards, shard_id),
            StreamMemory(self.args.tokens_per_sample, self._or_train(self.args.eval_context)),
            num_shards,
            shard_id,
            **others,
        )

    def inference_step(self, generator: Any, models: Any, sample: Any, *args: Any,
                       **options: Any) -> Any:
        """For fairseq-interactive, which continues sentences.

        Raises:
            UsageError: fairseq-generate, which would continue segments of streams.
        """
        if "memory" in sample["net_input"]:
            raise UsageError(
                "fairseq-generate continues no streams: give the beginnings of texts to "
                "fairseq-interactive, or --task language_modeling --sample-break-mode eos; "
                "fairseq-eval-lm scores streams")
        return super().inference_step(generator, models, sample, *args, **options)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        model = super().build_model(cfg, from_checkpoint)
        if not type(model).__module__.startswith("fairseq_sru."):
            raise UsageError(f"this task is for models of SRU or SRU++ layers, and {cfg._name} is "
                             "none: --task language_modeling reads others")
        self._models.append(model)
        return model

    def eval_lm_dataloader(
        self,
        dataset: Any,
        max_tokens: int | None = None,
        batch_size: int | None = None,
        context_window: int = 0,
        max_positions: int | None = None,
        num_shards: int = 1,
        **others: Any,
    ) -> Any:
        """For fairseq-eval-lm: one stream, or --batch-size of them. With --dynamic-lr the models
        that this task has built learn from every batch before they are given the next.

        Raises:
            UsageError: with --context-window; in several processes; impossible options of dynamic
                evaluation.
        """
        require_one_shard(num_shards)
        if context_window > 0:
            raise UsageError("streams carry their context along: give --eval-context instead of "
                             "--context-window")
        streams = 1 if batch_size is None else batch_size
        batches = self.get_batch_iterator(
            dataset, max_sentences=streams, max_positions=max_positions, **others)
        segments = batches.next_epoch_itr(shuffle=False)
        return self._learning(segments) if self.args.dynamic_lr else segments

    def _learning(self, segments: Any) -> DynamicEvaluation:
        learners = [Learner(model, self) for model in self._models]
        self.load_dataset(self.args.train_subset)
        batches = self._segments(
            self.dataset(self.args.train_subset), MEASURED_STREAMS,
            self._or_train(self.args.eval_segment))
        for learner in learners:
            epoch = batches.next_epoch_itr(shuffle=False)
            learner.measure(islice(epoch, self.args.dynamic_batches))
        rates = {
            "lr": self.args.dynamic_lr,
            "decay": self.args.dynamic_decay,
            "epsilon": self.args.dynamic_epsilon,
        }
        logger.info(f"dynamic evaluation: the model learns from what it has read, {rates}")
        return DynamicEvaluation(segments, learners, **rates)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        super().reduce_metrics(logging_outputs, criterion)
        if str(self.args.unit) == "character":
            metrics.log_derived("bpc", _bits_per_token)

    def _or_train(self, option: int | None) -> int:
        return self.args.tokens_per_sample if option is None else option


def _bits_per_token(meters: dict[str, Any]) -> float:
    meter = meters["nll_loss"] if "nll_loss" in meters else meters["loss"]
    return round(float(meter.avg), 4)
