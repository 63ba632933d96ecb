"""Ask a running module what the faces in pictures show.

python client.py face.jpg
python client.py --url http://192.168.1.20:5001/score *.jpg
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}


def ask(url: str, picture: Path) -> dict[str, Any]:
    """The module's answer to a picture; raise :class:`OSError` where it gives none."""
    headers = {"Content-Type": TYPES.get(picture.suffix.lower(), "image/jpeg")}
    request = urllib.request.Request(url, picture.read_bytes(), headers)  # noqa: S310 (user's own)
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
    return found


def main() -> None:
    """Print each picture's face and emotions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("picture", nargs="+", type=Path, help="JPEG or PNG")
    parser.add_argument("--url", default="http://localhost:5001/score")
    asked = parser.parse_args()
    if not asked.url.startswith(("http://", "https://")):
        parser.error("--url: an address that begins with http:// or https://")
    for picture in asked.picture:
        try:
            answer = ask(asked.url, picture)
        except urllib.error.HTTPError as error:
            sys.exit(f"error: {picture}: {error.code} {error.read().decode(errors='replace')}")
        except urllib.error.URLError as error:
            sys.exit(
                f"error: {asked.url} cannot be reached ({error.reason}): start the module with "
                "mlpack run or mlpack serve, or name it with --url"
            )
        except OSError as error:
            sys.exit(f"error: {picture}: {error.strerror or error}")
        show(picture, answer)


def show(picture: Path, answer: dict[str, Any]) -> None:
    """Where the face is, and one line for each emotion."""
    where = f"face at {answer['face']}" if "face" in answer else "the whole picture"
    print(f"{picture}: {where} ({answer['time'] * 1000:.0f} ms)")
    for each in answer["top"]:
        print(f"  {each['probability']:6.1%}  {each['label']}")


if __name__ == "__main__":
    main()
