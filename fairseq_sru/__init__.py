"""SRU and SRU++ for fairseq, loaded with ``--user-dir fairseq_sru``.

``fairseq_sru.modules`` and ``fairseq_sru.ops`` need PyTorch alone and change nothing elsewhere.
fairseq itself is repaired, and models, tasks and optimizers are registered, when ``--user-dir``
loads the package, when ``fairseq_sru.models`` or ``fairseq_sru.tasks`` is imported, or by
:func:`register`.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fairseq-sru")
except PackageNotFoundError:  # a checkout that --user-dir names
    __version__ = "0+checkout"


def register() -> None:
    """What ``--user-dir fairseq_sru`` does.

    Raises:
        ImportError: fairseq is not installed, or does not run on this Python.
    """
    import_module("fairseq_sru.tasks")
    import_module("fairseq_sru.models")


class _UserDir(list):
    """The package's ``__path__``. For a package that is imported already, fairseq only asks whether
    the user dir is in it, and takes the answer for a sign that all is registered."""

    def __contains__(self, folder: object) -> bool:
        found = super().__contains__(folder)
        if found:
            register()
        return found


__path__ = _UserDir(__path__)
