"""--retain-dropout-modules: what it names, and what no module answers to."""

from __future__ import annotations

import logging
from typing import Iterator

from fairseq.models import BaseFairseqModel
from fairseq.modules import FairseqDropout

from fairseq_sru.errors import UsageError
from fairseq_sru.modules.retained import RetainedDropout
from fairseq_sru.repairs.patching import replace

logger = logging.getLogger(__name__)


def apply() -> None:
    """Check the option and read it as fairseq means it."""
    check_retained_dropout()


def check_retained_dropout() -> None:
    """--retain-dropout-modules does nothing for a name that no module has, or on its own; and on a
    command line it is text, of which "TransformerDecoder" is a part wherever
    "TransformerDecoderLayer" is named."""

    @replace(BaseFairseqModel, "prepare_for_inference_")
    def prepare_for_inference_(original, self, cfg):
        wanted = getattr(cfg.generation, "retain_dropout_modules", None)
        if wanted is not None and not getattr(cfg.generation, "retain_dropout", False):
            raise UsageError("--retain-dropout-modules needs --retain-dropout")
        if isinstance(wanted, str):
            cfg.generation.retain_dropout_modules = wanted.split(",")
        original(self, cfg)

    @replace(BaseFairseqModel, "make_generation_fast_")
    def make_generation_fast_(original, self, *, retain_dropout_modules=None, **options):
        if retain_dropout_modules is not None:
            known = set(_modules_with_dropout(self))
            if known.isdisjoint(retain_dropout_modules):
                logger.warning(
                    f"--retain-dropout-modules {','.join(retain_dropout_modules)}: "
                    f"{type(self).__name__} has none of them and drops nothing; what it has: "
                    + ", ".join(sorted(known)))
        original(self, retain_dropout_modules=retain_dropout_modules, **options)


def _modules_with_dropout(model: BaseFairseqModel) -> Iterator[str]:
    for part in model.modules():
        if isinstance(part, FairseqDropout) and part.module_name is not None:
            yield part.module_name
        elif isinstance(part, RetainedDropout):
            yield type(part).__name__
