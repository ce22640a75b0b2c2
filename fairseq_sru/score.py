"""``python -m fairseq_sru.score``: fairseq-score, which loads no plugin, with its repairs."""

from pathlib import Path

from fairseq_sru import repairs
from fairseq_sru.errors import UsageError, one_line
from fairseq_sru.files import read_lines


def main() -> None:
    repairs.apply()
    from fairseq_cli.score import cli_main, get_parser

    from fairseq_sru.repairs import compat

    compat.repair_sacrebleu()
    args = get_parser().parse_args()
    check([Path(path) for path in (args.sys, args.ref) if path != "-"], args.order)
    cli_main()


def check(paths: list[Path], order: int) -> None:
    """Files that fairseq-score would compare line by line, to the end of the shorter one.

    Raises:
        UsageError: one that cannot be read or has no lines, different numbers of lines, or n-grams
            of no word.
    """
    if order < 1:
        raise UsageError(f"--order must be at least 1, got {order}")
    counts = {str(path): len(read_lines(path)) for path in paths}
    if 0 in counts.values():
        raise UsageError(f"{' or '.join(counts)} is empty")
    if len(set(counts.values())) > 1:
        raise UsageError("; ".join(f"{path} has {count} lines" for path, count in counts.items()))


if __name__ == "__main__":
    with one_line():
        main()
