"""Recorded runs of the reference implementation against ours."""

from fairseq_sru.convert.recorded.check import check_folder

__all__ = ["check_folder"]
