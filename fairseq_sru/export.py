"""``python -m fairseq_sru.export``: a checkpoint as a folder that loads without fairseq."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from fairseq_sru.errors import one_line
from fairseq_sru.inference import PRECISIONS
from fairseq_sru.inference.export import save
from fairseq_sru.inference.from_fairseq import import_checkpoint


def main() -> None:
    logging.disable(logging.INFO)
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_sru.export",
        description="Write all that inference needs of a checkpoint to a folder. Further options "
                    "are fairseq's --bpe and what belongs to it, by default those of the training "
                    "command.")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("folder", type=Path, metavar="DIR", help="new")
    parser.add_argument("--precision", choices=PRECISIONS, default="int8",
                        help="of the weights; default: %(default)s")
    parser.add_argument("--data", type=Path, metavar="DATA",
                        help="folder of the dictionaries; default: as in training")
    args, text_options = parser.parse_known_args()
    save(import_checkpoint(args.checkpoint, args.precision, args.data, text_options), args.folder)
    size = sum(path.stat().st_size for path in args.folder.iterdir())
    print(f"{args.folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    with one_line():
        main()
