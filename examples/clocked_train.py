"""fairseq-train with the processor seconds used so far in every line of its log.

Wall-clock time says little on a shared machine; `plots.py curve --by cpu` reads the stamps. Takes
fairseq-train's arguments. Processes that it starts stamp their lines with their own seconds.
"""

import logging
import time

make_record = logging.getLogRecordFactory()


def stamped(*args, **kwargs):
    record = make_record(*args, **kwargs)
    record.msg = f"cpu={time.process_time():.1f} | {record.msg}"
    return record


logging.setLogRecordFactory(stamped)

if __name__ == "__main__":
    from fairseq_cli.train import cli_main

    cli_main()
