"""fairseq optimizers: importing this registers them."""

from fairseq_sru.optim.radam import FairseqRAdam

__all__ = ["FairseqRAdam"]
