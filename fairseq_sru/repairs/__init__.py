"""What is patched in fairseq, in memory: :func:`apply` does all of it."""

from __future__ import annotations

import logging
import sys
import warnings


def apply() -> None:
    """Repair fairseq for today's libraries, say what is wrong in one line, and guard checkpoints.

    May be called again.

    Raises:
        ImportError: fairseq is not installed, or does not run on this Python.
    """
    _import_fairseq()
    from fairseq_sru.repairs import (
        checkpoints,
        command_options,
        compat,
        data,
        launches,
        memory,
        messages,
        results,
        retained_dropout,
        training,
        unknown_words,
    )

    for module in (
        compat, command_options, messages, data, retained_dropout, unknown_words, checkpoints,
        launches, memory, results, training,
    ):
        module.apply()


def _import_fairseq() -> None:
    # this module of fairseq asks for tensorboardX whenever fairseq is imported
    logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # of fairseq's source where no bytecode of it is kept, and with PyTorch 2.14
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)
            import fairseq  # noqa: F401
    except ValueError as error:
        if "mutable default" not in str(error):
            raise
        raise ImportError(
            f"this fairseq does not run on Python {sys.version_info[0]}.{sys.version_info[1]}: "
            "replace it with `pip uninstall fairseq && pip install fairseq-fixed`"
        ) from None
