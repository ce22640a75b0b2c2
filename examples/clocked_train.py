"""fairseq-train for a shared CPU: processor seconds in its log, and memory that stays in bounds.

Every line of the log has the processor seconds used so far: wall-clock time says little on a shared
machine; `plots.py curve --by cpu` reads the stamps. Takes fairseq-train's arguments. Processes that
it starts stamp their lines with their own seconds.

ATTENTION=math: PyTorch's attention by matrix products, which is faster on CPUs for short sentences.
"""

import logging
import os
import sys
import time
from pathlib import Path

make_record = logging.getLogRecordFactory()


def stamped(*args, **kwargs):
    record = make_record(*args, **kwargs)
    record.msg = f"cpu={time.process_time():.1f} | {record.msg}"
    return record


logging.setLogRecordFactory(stamped)

if __name__ == "__main__":
    attention = os.environ.get("ATTENTION", "")
    if attention not in ("", "math"):
        sys.exit(f"ATTENTION={attention}: use math, or leave it unset")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

    import torch
    from fairseq_cli import train  # before anything else of fairseq: it sets up the log

    from fairseq_sru.ops.extension import keep_freed_memory

    keep_freed_memory()
    if attention:
        torch.backends.cuda.enable_flash_sdp(False)  # the CPU's as well
    train.cli_main()
