"""fairseq tasks: importing this repairs fairseq and registers them, criterions, optimizers, tokens
of bytes."""

from fairseq_sru import repairs

repairs.apply()

from fairseq_sru import criterions, optim  # noqa: F401
from fairseq_sru.tasks import byte_tokens  # noqa: F401
from fairseq_sru.tasks.generation import use_engine
from fairseq_sru.tasks.language_modeling import StreamLanguageModelingTask

use_engine()

__all__ = ["StreamLanguageModelingTask"]
