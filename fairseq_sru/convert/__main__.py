"""Models of the reference implementation in and out, and recorded runs of it against ours.

  --check DIR                        run every recorded case of a folder against our modules
  MODEL.pt DIR --vocabulary WORDS    reference language model -> DIR/checkpoint.pt, DIR/dict.txt
  CHECKPOINT.pt MODEL.pt --to-reference
                                     the other way; also writes MODEL.pt.words
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fairseq_sru.convert.recorded import check_folder
from fairseq_sru.errors import one_line
from fairseq_sru.files import read_lines


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_sru.convert", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument("target", nargs="?", type=Path)
    parser.add_argument("--check", metavar="DIR", type=Path)
    parser.add_argument("--to-reference", action="store_true")
    parser.add_argument("--vocabulary", metavar="WORDS", type=Path,
                        help="the reference's words in its order, one a line; <eos>, <S> and </s> "
                             "are fairseq's </s>, <unk> and <UNK> its <unk>")
    parser.add_argument("--dict", metavar="DICT", type=Path,
                        help="fairseq's dict.txt of the exported model; default: in the folder of "
                             "the checkpoint")
    parser.add_argument("--num-heads", metavar="N", type=int, default=1,
                        help="attention heads of the imported model")
    args = parser.parse_args()
    if (args.check is None) == (args.target is None) or args.check and args.source:
        parser.error("give --check DIR, or a source and a target")
    if args.check is not None:
        return _check(args.check)
    from fairseq_sru.convert.checkpoint import export_model, import_model  # these need fairseq

    words = args.vocabulary and read_lines(args.vocabulary)
    if args.to_reference:
        dictionary = args.dict or args.source.parent / "dict.txt"
        export_model(args.source, args.target, dictionary, words)
    elif words is None:
        parser.error("the words that the reference's numbers stand for are needed: --vocabulary")
    else:
        import_model(args.source, args.target, words, args.num_heads)
    return 0


def _check(folder: Path) -> int:
    results = []
    for result in check_folder(folder):
        print(result, flush=True)
        results.append(result)
    failed = sum(not result.passed for result in results)
    print(f"{len(results)} cases, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    with one_line():
        sys.exit(main())
