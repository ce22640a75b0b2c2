"""Learn a joint BPE with sentencepiece and cut a corpus into its pieces."""

from __future__ import annotations

import argparse
from pathlib import Path

import sentencepiece

from fairseq_sru.errors import one_line
from fairseq_sru.files import read_lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="folder of {train,valid,test}.{de,en}")
    parser.add_argument("out", type=Path, help="existing folder for model and pieces")
    parser.add_argument("--vocabulary", type=int, default=2000, help="at most so many pieces")
    parser.add_argument("--normalization", default="nmt_nfkc", choices=["nmt_nfkc", "identity"],
                        help="identity keeps every token as it is")
    options = parser.parse_args()

    sentencepiece.SentencePieceTrainer.train(
        input=[str(options.corpus / f"train.{language}") for language in ("de", "en")],
        model_prefix=str(options.out / "sentencepiece"),
        model_type="bpe",
        vocab_size=options.vocabulary,
        character_coverage=1.0,
        normalization_rule_name=options.normalization,
        num_threads=1,
        minloglevel=1,
    )
    model = sentencepiece.SentencePieceProcessor(
        model_file=str(options.out / "sentencepiece.model")
    )
    for path in sorted(options.corpus.glob("*.??")):
        # fairseq takes a carriage return for the end of a line, wherever it stands
        sentences = [line.replace("\r", " ") for line in read_lines(path)]
        cut = (" ".join(pieces) for pieces in model.encode(sentences, out_type=str))
        text = "".join(line + "\n" for line in cut)
        (options.out / path.name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with one_line():
        main()
