"""Learn a joint BPE with sentencepiece and cut a corpus into its pieces."""

from __future__ import annotations

import argparse
from pathlib import Path

import sentencepiece

from fairseq_sru.errors import UsageError, one_line
from fairseq_sru.files import read_lines


def learn(
    corpus: Path, out: Path, pieces: int, normalization: str
) -> sentencepiece.SentencePieceProcessor:
    """Write sentencepiece.model and .vocab to the folder ``out``.

    Raises:
        UsageError: a folder is missing, there is no text, or it does not have so many pieces.
    """
    texts = [corpus / f"train.{language}" for language in ("de", "en")]
    for text in texts:
        if not text.is_file() or text.stat().st_size == 0:
            raise UsageError(f"{text} is missing or empty: give a folder of "
                             "{train,valid,test}.{de,en}")
    if pieces < 1:
        raise UsageError(f"--vocabulary must be at least 1, got {pieces}")
    if not out.is_dir():
        raise UsageError(f"{out} is no folder: create it")
    try:
        sentencepiece.SentencePieceTrainer.train(
            input=[str(text) for text in texts],
            model_prefix=str(out / "sentencepiece"),
            model_type="bpe",
            vocab_size=pieces,
            character_coverage=1.0,
            normalization_rule_name=normalization,
            num_threads=1,
            minloglevel=1,
        )
    except RuntimeError as error:  # the check that failed in brackets, then what there is to say
        reason = str(error).rpartition("] ")[2] or f"{corpus} has no sentences"
        raise UsageError(f"--vocabulary {pieces}: {reason}") from error
    return sentencepiece.SentencePieceProcessor(model_file=str(out / "sentencepiece.model"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="folder of {train,valid,test}.{de,en}")
    parser.add_argument("out", type=Path, help="existing folder for model and pieces")
    parser.add_argument("--vocabulary", type=int, default=2000, help="at most so many pieces")
    parser.add_argument("--normalization", default="nmt_nfkc", choices=["nmt_nfkc", "identity"],
                        help="identity keeps every token as it is")
    options = parser.parse_args()

    model = learn(options.corpus, options.out, options.vocabulary, options.normalization)
    for path in sorted(options.corpus.glob("*.??")):
        # fairseq takes a carriage return for the end of a line, wherever it stands
        sentences = [line.replace("\r", " ") for line in read_lines(path)]
        cut = (" ".join(pieces) for pieces in model.encode(sentences, out_type=str))
        text = "".join(line + "\n" for line in cut)
        (options.out / path.name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with one_line():
        main()
