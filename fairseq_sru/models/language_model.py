"""The SRU++ and SRU language models."""

from __future__ import annotations

from typing import Any

from fairseq.models import FairseqLanguageModel

from fairseq_sru.models.lm_config import (
    SRU_PRESETS,
    SRUPP_PRESETS,
    LMConfig,
    SRULMConfig,
    SRUppLMConfig,
)
from fairseq_sru.models.lm_decoder import LMDecoder
from fairseq_sru.models.stack import build_sru_lm, build_srupp_lm
from fairseq_sru.options import check_config
from fairseq_sru.registry import register_model, register_presets


@register_model("srupp_lm", dataclass=SRUppLMConfig)
class SRUppLanguageModel(FairseqLanguageModel):
    """SRU++ language model, whose memory holds cells and, of the layers that attend, the inputs or
    the keys and values.

    Source: SRU++ paper section 4 and appendix B.
    """

    @classmethod
    def build_model(cls, cfg: SRUppLMConfig, task: Any) -> SRUppLanguageModel:
        """Build from options and the task's dictionary.

        Raises:
            ValueError: impossible sizes or options.
        """
        check_config(cfg, SRUppLMConfig)
        return cls(LMDecoder(
            cfg, task.target_dictionary, build_srupp_lm,
            generation_context=cfg.generation_context, project_memory=cfg.project_memory,
            **_of_task(cfg, task)))


@register_model("sru_lm", dataclass=SRULMConfig)
class SRULanguageModel(FairseqLanguageModel):
    """SRU language model, whose memory holds cells alone: a token sees all before it, whatever
    --eval-context says.

    Source: SRU paper section 4.4; sizes of embedding and output as in its authors' training
    script.
    """

    @classmethod
    def build_model(cls, cfg: SRULMConfig, task: Any) -> SRULanguageModel:
        """Build from options and the task's dictionary.

        Raises:
            ValueError: impossible sizes or options.
        """
        check_config(cfg, SRULMConfig)
        return cls(LMDecoder(
            cfg, task.target_dictionary, build_sru_lm, narrow_features=False,
            **_of_task(cfg, task)))


def _of_task(cfg: LMConfig, task: Any) -> dict[str, Any]:
    """What options of the task say about the model."""
    limit = cfg.max_target_positions
    if limit is None:
        limit = getattr(getattr(task, "args", None), "max_target_positions", None)
    read = getattr(task, "source_dictionary", task.target_dictionary)
    return {"input_types": len(read), "max_target_positions": limit}


register_presets("srupp_lm", SRUPP_PRESETS)
register_presets("sru_lm", SRU_PRESETS)
