"""``python -m fairseq_sru.score``: fairseq-score, which loads no plugin, with its repairs."""

import io
import sys
from pathlib import Path

from fairseq_sru import repairs
from fairseq_sru.errors import UsageError, one_line
from fairseq_sru.files import read_lines

STDIN = Path("/dev/stdin")


def main() -> None:
    repairs.apply()
    from fairseq_cli import score

    from fairseq_sru.repairs import compat

    compat.repair_sacrebleu()
    args = score.get_parser().parse_args()
    texts = {name: read_lines(STDIN if name == "-" else Path(name))
             for name in (args.sys, args.ref)}
    check(texts, args.order)
    # fairseq cuts lines at carriage returns too, and takes a byte order mark for text
    score.open = lambda name, mode="r": _file(texts[name])
    sys.stdin = _file(texts[args.sys])
    score.cli_main()


def _file(lines: list[str]) -> io.StringIO:
    return io.StringIO("".join(f"{line}\n" for line in lines), newline="\n")


def check(texts: dict[str, list[str]], order: int) -> None:
    """Texts that fairseq-score would compare line by line, to the end of the shorter one.

    Raises:
        UsageError: one that has no lines, different numbers of lines, or n-grams of no word.
    """
    if order < 1:
        raise UsageError(f"--order must be at least 1, got {order}")
    counts = {"standard input" if name == "-" else name: len(lines)
              for name, lines in texts.items()}
    if 0 in counts.values():
        raise UsageError(f"{' or '.join(counts)} is empty")
    if len(set(counts.values())) > 1:
        raise UsageError("; ".join(f"{name} has {count} lines" for name, count in counts.items()))


if __name__ == "__main__":
    with one_line():
        main()
