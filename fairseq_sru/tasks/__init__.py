"""fairseq tasks: importing this registers them."""

from fairseq_sru.tasks.language_modeling import StreamLanguageModelingTask
from fairseq_sru.tasks.streams import gather_before_saving

gather_before_saving()

__all__ = ["StreamLanguageModelingTask"]
