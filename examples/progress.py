"""One line on the screen for a step whose output comes through a pipe and goes to a log file.

command 2>&1 | python progress.py NAME LOG

A training by fairseq moves the line: epoch, loss, words a second, time left. Where the output is no
terminal, a line is printed when the step ends, and of a long training one for every twentieth. The
step has succeeded if its last line is ``DONE``; otherwise the end of the log is shown.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, TextIO

DONE = b"step finished\n"
SHOWN = 15  # lines of the log of a step that failed
WIDTH = 20  # of a step's name
SELDOM = 60  # seconds between two lines where lines do not move


class Training:
    """What fairseq's json log has said so far."""

    def __init__(self) -> None:
        self.limits: dict[str, float] = {}
        self.latest: dict[str, Any] = {}
        self.valid: dict[str, Any] = {}
        self.start: tuple[float, float] | None = None  # time and share of the first report

    def read(self, line: str, now: float) -> bool:
        """Whether this line is a report."""
        if not self.limits:
            found = re.findall(r"'(max_epoch|max_update)': ([0-9.]+)", line)
            self.limits = {key: float(value) for key, value in found}
        at = line.find('{"epoch"')
        try:
            report = json.loads(line[at:]) if at >= 0 else {}
        except ValueError:  # another process has written into the line
            return False
        if "valid_loss" in report:
            self.valid = report
        elif "num_updates" in report:
            self.latest = report
            self.start = self.start or (now, self.share())
        return "num_updates" in report

    def share(self) -> float:
        """How much of the training is done; 0 where it has no end."""
        done = {"max_epoch": float(self.latest["update"]),
                "max_update": float(self.latest["num_updates"])}
        return max((done[key] / limit for key, limit in self.limits.items() if limit), default=0.0)

    def left(self, now: float) -> float | None:
        """Seconds, as fast as so far."""
        if self.start is None or self.share() <= self.start[1]:
            return None
        (began, first), share = self.start, self.share()
        return max(0.0, (now - began) * (1 - share) / (share - first))

    def now(self, left: float | None) -> str:
        """Where it is, with the seconds that are left."""
        rest = f"{clock(left)} left" if left is not None else ""
        return self._said(f"loss {self.latest['loss']}", self._speed(), rest)

    def result(self) -> str:
        """Where it ended."""
        valid = f"valid {self.valid['valid_loss']}" if self.valid else ""
        return self._said(f"loss {self.latest['loss']}", valid, self._speed())

    def _said(self, *parts: str) -> str:
        return ", ".join(part for part in (f"epoch {self.latest['epoch']}", *parts) if part)

    def _speed(self) -> str:
        return f"{float(self.latest['wps']):,.0f} words/s" if "wps" in self.latest else ""


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def watch(name: str, log: Path, source: BinaryIO, screen: TextIO) -> bool:
    """Copy ``source`` to ``log`` and say on ``screen`` how it goes; whether it succeeded."""
    began = said = time.monotonic()
    training, moves, done, shown = Training(), screen.isatty(), False, 0.0

    def say(text: str, last: bool = False) -> None:
        seconds = clock(time.monotonic() - began)
        line = f"{name:<{WIDTH}} {seconds:>7}  {text}".rstrip()
        if moves:
            line = "\r" + line[: shutil.get_terminal_size().columns - 1] + "\x1b[K"
        screen.write(line + ("\n" if last or not moves else ""))
        screen.flush()

    if moves:
        say("")
    with log.open("wb") as file:
        for line in iter(source.readline, b""):
            done = line == DONE
            if done:
                continue
            file.write(line)
            file.flush()
            now = time.monotonic()
            if not training.read(line.decode(errors="replace"), now):
                continue
            share, left = training.share(), training.left(now)
            due = now - said >= SELDOM and share - shown >= 0.05
            if moves or due:
                say(training.now(left))
                said, shown = now, share
    result = training.result() if training.latest else ""
    say(result if done else f"failed: {log}", last=True)
    return done


def main() -> None:
    name, log = sys.argv[1], Path(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the step ends, and with it the pipe
    log.parent.mkdir(parents=True, exist_ok=True)
    if not watch(name, log, sys.stdin.buffer, sys.stdout):
        end = log.read_text(encoding="utf-8", errors="replace").rstrip("\n").split("\n")[-SHOWN:]
        sys.exit("\n".join(end) or f"{name} printed nothing")


if __name__ == "__main__":
    main()
