"""Write a text that comes with every Python: documentation topics and the standard library.

Files train, valid and test: whole topics and modules, one of forty each for valid and test.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics


def documents() -> list[bytes]:
    """All topics, then the modules at the top of the standard library, each by name."""
    modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [topics[name].encode() for name in sorted(topics)]
    return texts + [path.read_bytes() for path in modules]


def split_of(number: int) -> str:
    return {19: "valid", 39: "test"}.get(number % 40, "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="a folder, made here")
    options = parser.parse_args()

    texts: dict[str, list[bytes]] = {"train": [], "valid": [], "test": []}
    for number, text in enumerate(documents()):
        texts[split_of(number)].append(text)
    options.out.mkdir(parents=True)
    for split, parts in texts.items():
        (options.out / split).write_bytes(b"\n".join(parts))


if __name__ == "__main__":
    main()
