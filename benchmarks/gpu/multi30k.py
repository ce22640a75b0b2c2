"""A JSON line for each folder of a run of examples/multi30k: how long it trained, and its score."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        log = (folder / "train.log").read_text()
        entries = [json.loads(line[line.index("{"):]) for line in log.split("\n")
                   if '{"epoch"' in line]
        (bleu,) = (score for score in json.loads((folder / "bleu.json").read_text())
                   if score["name"] == "BLEU")
        valid = [entry for entry in entries if "valid_ppl" in entry][-1]
        trained = [entry for entry in entries if "train_wall" in entry][-1]
        print(json.dumps({
            "model": folder.name.replace("gpu-multi30k", "srupp_multi30k"),
            "updates": int(valid["valid_num_updates"]),
            "minutes": round(float(trained["train_wall"]) / 60, 2),
            "valid_perplexity": float(valid["valid_ppl"]),
            "BLEU": bleu["score"],
            "signature": bleu["signature"],
        }))


if __name__ == "__main__":
    main()
