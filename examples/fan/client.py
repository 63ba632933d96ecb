"""Ask a fan module over HTTP: one reading from the command line, or a CSV file of them.

    python client.py 600 40 150 48
    python client.py --url http://gateway:5001/score --csv fan.csv

The CSV file has the columns Rotation, Temperature, Vibration, Sound, and perhaps Faulty;
with it, the share of right answers is printed, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

COLUMNS = ("Rotation", "Temperature", "Vibration", "Sound")
AT_ONCE = 1000
"""Readings in one request."""


def ask(url: str, request: dict[str, Any]) -> Any:  # noqa: ANN401
    """Post ``request``; end with the module's message where it answers no result."""
    sent = urllib.request.Request(  # noqa: S310 (the user names the address)
        url, json.dumps(request).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(sent, timeout=60) as reply:  # noqa: S310
            return json.load(reply)
    except urllib.error.HTTPError as error:
        sys.exit(f"error: {url} answered {error.code}: {error.read(500).decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"error: {url} cannot be reached: {getattr(error, 'reason', error)}")


def score_file(url: str, path: Path) -> str:
    """Score all readings of a CSV file; a sentence about the answers."""
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    found: list[str] = []
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        data = [[float(row[name]) for name in COLUMNS] for row in part]
        found += [each["fault"] for each in ask(url, {"data": data})["result"]]
    said = f"{found.count('1')} of {len(found)} readings are faults"
    if rows and "Faulty" in rows[0]:
        right = sum(row["Faulty"] == fault for row, fault in zip(rows, found, strict=True))
        said += f", {right / len(rows):.4f} of the answers are right"
    return said


def main() -> None:
    """Ask, and print the answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:5001/score")
    parser.add_argument("--csv", type=Path, metavar="FILE")
    parser.add_argument("params", type=float, nargs="*", metavar="NUMBER", help=", ".join(COLUMNS))
    asked = parser.parse_args()
    if asked.csv is not None:
        print(score_file(asked.url, asked.csv))
    elif len(asked.params) == len(COLUMNS):
        print(json.dumps(ask(asked.url, {"params": asked.params})))
    else:
        parser.error(f"give four numbers ({', '.join(COLUMNS)}), or --csv")


if __name__ == "__main__":
    main()
