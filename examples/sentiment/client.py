"""Ask the sentiment container about comments, and the release which of them need a person.

python client.py "The staff were kind" "My order never came"
python client.py --sentiment http://192.168.1.20:5000 --release http://192.168.1.20:5001 …
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

CLASSES = ("positive", "neutral", "negative")
MOST = 10
"""Comments in one request: what the container takes."""


class Unusable(Exception):
    """A module that answers otherwise than it should; the text says how."""


def post(url: str, document: object) -> Any:  # noqa: ANN401  (a JSON document)
    """Send a JSON document and return the answer's; raise :class:`Unusable`."""
    request = urllib.request.Request(  # noqa: S310  (the user's own address)
        url, json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        said = error.read(1000).decode("utf-8", "replace")
        raise Unusable(f"{url} answers {error.code}: {said}") from error
    except (OSError, ValueError) as error:
        raise Unusable(f"{url} does not answer: {error}") from error


def sentiment(url: str, comments: Sequence[str]) -> list[list[float]]:
    """Return each comment's confidences, in the order of :data:`CLASSES`."""
    scores: dict[int, list[float]] = {}
    for start in range(0, len(comments), MOST):
        documents = [
            {"id": str(number), "language": "en", "text": comments[number]}
            for number in range(start, min(start + MOST, len(comments)))
        ]
        answer = post(f"{url}/text/analytics/v3.1/sentiment", {"documents": documents})
        for each in answer["errors"]:
            raise Unusable(f"comment {each['id']}: {each['error']['message']}")
        for each in answer["documents"]:
            found = each["confidenceScores"]
            scores[int(each["id"])] = [found[name] for name in CLASSES]
    return [scores[number] for number in range(len(comments))]


def escalate(url: str, scores: Sequence[Sequence[float]]) -> list[float]:
    """Return for each comment how likely it needs a person."""
    answer = post(f"{url}/score", {"data": scores})
    return [row[0] for row in answer["result"]]


def main() -> None:
    """Print each comment with its confidences, those that need a person first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("comment", nargs="+")
    parser.add_argument("--sentiment", default="http://localhost:5000")
    parser.add_argument("--release", default="http://localhost:5001")
    asked = parser.parse_args()
    try:
        scores = sentiment(asked.sentiment, asked.comment)
        found = escalate(asked.release, scores)
    except Unusable as error:
        sys.exit(f"error: {error}")
    for likely, text in sorted(zip(found, asked.comment, strict=True), reverse=True):
        print(f"{likely:.2f}  {text}")


if __name__ == "__main__":
    main()
