"""What fairseq-generate writes."""

from __future__ import annotations

import os
import sys

from fairseq_sru.repairs.patching import replace


def apply() -> None:
    """--results-path has whole files."""
    for name in ("__main__", "fairseq_cli.generate"):
        module = sys.modules.get(name)
        if not (hasattr(module, "_main") and hasattr(module, "get_symbols_to_strip_from_output")):
            continue

        @replace(module, "_main")
        def _main(original, cfg, output_file):
            try:
                return original(cfg, output_file)
            except OSError:  # such as of a full disk
                if output_file is not sys.stdout:
                    os.unlink(output_file.name)
                raise
