"""fairseq criterions: importing this registers them."""

from fairseq_sru.criterions.consistency import RDropCriterion, SimCutCriterion
from fairseq_sru.criterions.fused import FusedCrossEntropyCriterion

__all__ = ["FusedCrossEntropyCriterion", "RDropCriterion", "SimCutCriterion"]
