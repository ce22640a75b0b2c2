"""``python -m fairseq_sru.score``: fairseq-score, which loads no plugin, with its repairs."""

from fairseq_cli.score import cli_main

from fairseq_sru import compat

if __name__ == "__main__":
    compat.repair_sacrebleu()
    cli_main()
