"""``python -m fairseq_sru.translate``: translate a file, a sentence a line."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, Iterable

from fairseq_sru.errors import UsageError, one_line
from fairseq_sru.files import lines, text_files
from fairseq_sru.inference import PRECISIONS, GenerationOptions
from fairseq_sru.inference.translator import Translator
from fairseq_sru.ranges import check_ranges

SEARCH = {  # options of the search, besides --beam and --nbest
    "lenpen": "length penalty: above 1 favours long translations",
    "unkpen": "penalty of unknown words: above 0 favours fewer",
    "max_len_a": "a translation has at most A * S + B tokens, S those of its source",
    "max_len_b": "B, see --max-len-a",
    "min_len": "least tokens of a translation",
    "temperature": "what scores are divided by",
    "no_repeat_ngram_size": "no group of so many tokens comes twice; 0: may",
}


def main() -> None:
    logging.disable(logging.INFO)
    parser = _parser()
    args, text_options = parser.parse_known_args()
    options: dict[str, Any] = {}
    if args.model.is_dir():
        if text_options or args.precision or args.data:
            parser.error(f"{args.model} is an exported model: precision, dictionaries and text "
                         "were chosen by `python -m fairseq_sru.export`")
    else:
        options = dict(
            precision=args.precision or "int8", data=args.data, text_options=text_options)
    search = {name: getattr(args, name) for name in ("beam", "nbest", *SEARCH)}
    try:
        GenerationOptions(**search)
        check_ranges(threads=args.threads)
    except ValueError as error:
        raise UsageError(f"--{str(error).replace('_', '-')}") from error
    translator = Translator(args.model, **options)
    with text_files(args.input, args.output) as (source, target):
        started, count = time.monotonic(), 0
        for best in _watched(translator.stream(lines(source), args.threads, **search)):
            count += 1
            target.write("".join(
                f"{f'{t.score:.4f}{chr(9)}' if args.scores else ''}{t.text}\n" for t in best
            ).encode())
    seconds = time.monotonic() - started
    print(f"{count:,} lines in {seconds:.1f} s, {count / max(seconds, 1e-9):.1f} a second",
          file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_sru.translate",
        description="Translate text, a sentence a line; empty lines stay empty. Further options "
                    "are fairseq's --bpe and --tokenizer and what belongs to them, by default "
                    "those of the training command.")
    parser.add_argument("model", type=Path, metavar="MODEL",
                        help="folder of `python -m fairseq_sru.export`, or a fairseq checkpoint")
    parser.add_argument("--input", type=Path, metavar="FILE", help="default: standard input")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--precision", choices=PRECISIONS,
                        help="of the weights of a checkpoint; default: int8")
    parser.add_argument("--data", type=Path, metavar="DIR",
                        help="folder of the checkpoint's dictionaries; default: as in training")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--beam", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--nbest", type=int, default=1, metavar="N",
                        help="so many translations of each line, one after the other")
    parser.add_argument("--scores", action="store_true",
                        help="log-probability and a tab before each translation")
    defaults = {field.name: field.default for field in fields(GenerationOptions)}
    for name, text in SEARCH.items():
        default: Any = defaults[name]
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default,
                            metavar="X", help=f"{text}; default: %(default)s")
    return parser


def _watched(lines: Iterable[Any]) -> Iterable[Any]:
    """``lines`` with a progress bar, if a person watches."""
    if not sys.stderr.isatty():
        return lines
    from tqdm import tqdm

    return tqdm(lines, unit=" lines", leave=False)


if __name__ == "__main__":
    with one_line():
        main()
