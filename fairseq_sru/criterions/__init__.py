"""fairseq criterions: importing this registers them."""

from fairseq_sru.criterions.consistency import RDropCriterion, SimCutCriterion

__all__ = ["RDropCriterion", "SimCutCriterion"]
