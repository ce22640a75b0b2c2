"""fairseq-train for a shared CPU: processor seconds in its log, and steady memory.

Every line of the log has the processor seconds used so far: wall-clock time says little on a shared
machine; `plots.py curve --by cpu` reads the stamps. For memory see allocator.py. Takes
fairseq-train's arguments. Processes that it starts stamp their lines with their own seconds.

ATTENTION=math: PyTorch's attention by matrix products, which is faster on CPUs for short sentences.
"""

import logging
import os
import time

import allocator

make_record = logging.getLogRecordFactory()


def stamped(*args, **kwargs):
    record = make_record(*args, **kwargs)
    record.msg = f"cpu={time.process_time():.1f} | {record.msg}"
    return record


logging.setLogRecordFactory(stamped)

if __name__ == "__main__":
    allocator.keep_freed_memory()

    import torch
    from fairseq_cli import train  # before anything else of fairseq: it sets up the log

    if os.environ.get("ATTENTION") == "math":
        torch.backends.cuda.enable_flash_sdp(False)  # the CPU's as well
    train.Trainer.train_step = allocator.trimming(train.Trainer.train_step)
    train.cli_main()
