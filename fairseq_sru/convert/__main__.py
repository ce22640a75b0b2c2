"""Command line of the conversion."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fairseq_sru.convert.check import check_folder
from fairseq_sru.convert.layout import ConversionError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fairseq_sru.convert", description=__doc__)
    parser.add_argument("--check", metavar="DIR", type=Path, required=True,
                        help="run every recorded case of a folder against our modules")
    args = parser.parse_args()
    results = []
    for result in check_folder(args.check):
        print(result, flush=True)
        results.append(result)
    failed = sum(not result.passed for result in results)
    print(f"{len(results)} cases, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConversionError as error:
        sys.exit(f"error: {error}")
