"""SRU and SRU++ for fairseq, loaded with ``--user-dir fairseq_sru``.

``fairseq_sru.modules`` and ``fairseq_sru.ops`` need PyTorch alone. Where fairseq is installed,
importing the package also repairs it for today's libraries and registers models, tasks and
optimizers.
"""

import logging
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

try:
    __version__ = version("fairseq-sru")
except PackageNotFoundError:  # a checkout that --user-dir names
    __version__ = "0+checkout"


def _import_fairseq() -> None:
    # this module of fairseq asks for tensorboardX whenever fairseq is imported
    logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)
    try:
        import fairseq  # noqa: F401
    except ValueError as error:
        if "mutable default" not in str(error):
            raise
        raise ImportError(
            f"this fairseq does not run on Python {sys.version_info[0]}.{sys.version_info[1]}: "
            "replace it with `pip uninstall fairseq && pip install fairseq-fixed`"
        ) from None


if find_spec("fairseq") is not None:
    _import_fairseq()

    from fairseq_sru import checkpoints, compat, errors

    compat.apply()
    errors.apply()
    checkpoints.apply()

    # registered by being imported
    from fairseq_sru import byte_tokens, models, optim, tasks  # noqa: F401
