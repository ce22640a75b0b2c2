"""fairseq tasks: importing this repairs fairseq and registers them, tokens of bytes, optimizers."""

from fairseq_sru import repairs

repairs.apply()

from fairseq_sru import optim  # noqa: F401
from fairseq_sru.tasks import byte_tokens  # noqa: F401
from fairseq_sru.tasks.generation import use_engine
from fairseq_sru.tasks.language_modeling import StreamLanguageModelingTask

use_engine()

__all__ = ["StreamLanguageModelingTask"]
