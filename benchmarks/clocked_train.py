"""fairseq-train with the processor seconds used so far in every line of its log.

Wall-clock time says little on a shared machine; `examples/plots.py curve --by cpu` reads the
stamps. Takes fairseq-train's arguments.
"""

import logging
import time

make_record = logging.getLogRecordFactory()


def stamped(*args, **kwargs):
    record = make_record(*args, **kwargs)
    record.msg = f"cpu={time.process_time():.1f} | {record.msg}"
    return record


logging.setLogRecordFactory(stamped)

from fairseq_cli.train import cli_main  # noqa: E402

cli_main()
