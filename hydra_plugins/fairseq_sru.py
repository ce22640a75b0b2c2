"""Lets fairseq-hydra-train know the presets before it reads its options.

Hydra looks into ``hydra_plugins`` whenever it starts. fairseq imports ``common.user_dir`` only
when the options are read, which is too late for ``model=srupp_tiny``.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

OPTION = "common.user_dir="


class FairseqSRU(SearchPathPlugin):
    """Imports the user dir that the command line names, if it is this package."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for argument in sys.argv[1:]:
            name, option, folder = argument.partition(OPTION)
            if option and name in ("", "+", "++") and _is_ours(folder):
                from fairseq import utils

                utils.import_user_module(SimpleNamespace(user_dir=folder))


def _is_ours(folder: str) -> bool:
    return os.path.basename(os.path.normpath(folder)) == "fairseq_sru"
