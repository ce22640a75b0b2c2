"""``python -m fairseq_sru.score``: fairseq-score, which loads no plugin, with its repairs."""

from fairseq_sru import repairs


def main() -> None:
    repairs.apply()
    from fairseq_cli.score import cli_main

    from fairseq_sru.repairs import compat

    compat.repair_sacrebleu()
    cli_main()


if __name__ == "__main__":
    main()
