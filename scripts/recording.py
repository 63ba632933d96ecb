"""Draw the recording of the README's tour: ``docs/pictures/tour.txt`` to ``tour.svg``.

A line of the transcript is the second at which it was printed, a tab and the text; commands start
with ``$``. ``make docs`` draws it; ``scripts/recording.py --record`` runs the tour again (a base is
built, which takes minutes) and writes the transcript. Two rules of CSS move the text: one scrolls
it, one moves a cover off the lines that were printed. Waits are shortened to fit the length.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from textwrap import wrap

TRANSCRIPT = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "tour.txt"

COMMANDS = (
    "mlpack init --template fan fan",
    "cd fan",
    "python train.py",
    "mlpack register fan.onnx --metrics metrics.json",
    "mlpack base build",
    "mlpack build fan",
    "python train.py --retrain",
    "mlpack register fan.onnx --metrics metrics.json",
    "mlpack build fan",
    "mlpack diff fan:1 fan:2",
    "mlpack report fan --devices 100000 | head -3",
)
"""Lines of the README's tour; of the report, what it says first."""

LENGTH, LAST = 30.0, 4.0
"""Seconds of the recording, and those for which its end is shown."""

LONGEST, SHORTEST = 2.0, 0.1
"""Seconds between two lines before they are scaled to the length."""

COLUMNS, ROWS = 100, 26
"""Size of the terminal in characters."""

CHARACTER, LINE, MARGIN = 7.2, 17, 14
"""Units of a character's width, a line's height and the margin."""


@dataclass(frozen=True, slots=True)
class Printed:
    """A line of the terminal and when it was printed, in seconds from the start."""

    seconds: float
    text: str


def read(transcript: str) -> tuple[Printed, ...]:
    """Return the lines of a transcript, broken where the terminal is too narrow."""
    rows: list[Printed] = []
    for line in transcript.splitlines():
        seconds, _, text = line.partition("\t")
        rows += [
            Printed(float(seconds), each)
            for each in wrap(text, COLUMNS, break_on_hyphens=False) or [""]
        ]
    return tuple(rows)


def moments(rows: Sequence[Printed]) -> tuple[float, ...]:
    """Return when each line is shown, as a part of the recording from 0 to 1."""
    waits = [
        0.0 if now.seconds == before.seconds
        else min(max(now.seconds - before.seconds, SHORTEST), LONGEST)
        for before, now in pairwise(rows)
    ]  # fmt: skip
    scale = (LENGTH - LAST) / (sum(waits) or 1.0) / LENGTH
    shown = [0.0]
    for wait in waits:
        shown.append(shown[-1] + wait * scale)
    return tuple(shown)


def draw(transcript: str) -> str:
    """Return the recording as an animated SVG, which shows its end where motion is unwanted."""
    rows = read(transcript)
    width, height = COLUMNS * CHARACTER + 2 * MARGIN, ROWS * LINE + 2 * MARGIN
    below = len(rows) * LINE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12">',
        "<title>A terminal: a model is trained, registered and built twice; the second release "
        "sends one layer of some kilobytes</title>",
        f"<style>{_style(rows)}</style>",
        f'<rect width="{width:g}" height="{height:g}" rx="10" fill="#1d2130"/>',
        f'<svg y="{MARGIN}" width="{width:g}" height="{ROWS * LINE}"><g class="text">',
        *_lines(rows),
        f'<rect class="cover" width="{width:g}" height="{below}" fill="#1d2130"/>',
        "</g></svg>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _lines(rows: Sequence[Printed]) -> Iterator[str]:
    for number, row in enumerate(rows):
        if row.text:
            command = ' class="command"' if row.text.startswith("$ ") else ""
            base = number * LINE + 12
            start = f'<text x="{MARGIN}" y="{base}"{command} xml:space="preserve">'
            yield f"{start}{escape(row.text)}</text>"


def _style(rows: Sequence[Printed]) -> str:
    ends = [number * LINE for number in range(1, len(rows) + 1)]
    frames = {f"{100 * at:.2f}": end for at, end in zip(moments(rows), ends, strict=True)}
    last = max(ends[-1] - ROWS * LINE, 0)
    cover = "".join(f"{at}%{{transform:translateY({end}px)}}" for at, end in frames.items())
    scroll = "".join(
        f"{at}%{{transform:translateY({min(ROWS * LINE - end, 0)}px)}}"
        for at, end in frames.items()
    )
    return (
        "text{fill:#d5d9e6}.command{fill:#7fd1ea;font-weight:600}"
        f".text{{transform:translateY({-last}px);animation:scroll {LENGTH:g}s step-end infinite}}"
        f".cover{{transform:translateY({ends[-1]}px);"
        f"animation:cover {LENGTH:g}s step-end infinite}}"
        f"@keyframes scroll{{{scroll}}}@keyframes cover{{{cover}}}"
        "@media(prefers-reduced-motion:reduce){.text,.cover{animation:none}}"
    )


def record(commands: Sequence[str]) -> str:
    """Run the commands in an empty directory; return their transcript."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": str(COLUMNS), "NO_COLOR": "1"}
    began, lines = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command in commands:
            lines.append(f"{time.monotonic() - began:.2f}\t$ {command}")
            if command.startswith("cd "):
                folder /= command.removeprefix("cd ")
                continue
            for text in _run(command, folder, environment):
                lines.append(f"{time.monotonic() - began:.2f}\t{text}")
    return "\n".join(lines) + "\n"


def _run(command: str, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    with subprocess.Popen(
        ["/bin/sh", "-c", command], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as running:  # fmt: skip
        for line in running.stdout or ():
            yield line.rstrip()
    if running.returncode:
        sys.exit(f"{command} ended with {running.returncode}")


if __name__ == "__main__":
    if "--record" in sys.argv[1:]:
        TRANSCRIPT.write_text(record(COMMANDS), encoding="utf-8")
    svg = draw(TRANSCRIPT.read_text(encoding="utf-8"))
    TRANSCRIPT.with_suffix(".svg").write_text(svg, encoding="utf-8")
