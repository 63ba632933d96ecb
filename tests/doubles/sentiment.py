"""Microsoft's sentiment container, as far as a client can tell: a process of its own.

It takes ``Eula``, ``Billing`` and ``ApiKey`` from arguments (``Eula=accept``) or the environment,
in any case, and does not start without them. A key that the billing endpoint does not know lets it
start: ``/status`` tells, and requests get 401. Sentiment is a count of words.

Sources: Microsoft Learn, "Install and run Sentiment Analysis containers" (2026-06); the reference
of Text Analytics v3.1; MicrosoftDocs/azure-docs issues 32108, 33829 and 46623.
"""

from __future__ import annotations

import http.server
import json
import os
import sys
from typing import Any

GOOD = frozenset({"kind", "great", "good", "love", "friendly"})
BAD = frozenset({"never", "bad", "rude", "cold", "broken"})
MOST_DOCUMENTS, MOST_CHARACTERS = 10, 5120
KNOWN_KEY = "DOUBLE_KNOWN_KEY"
"""The variable with the key that the billing endpoint knows."""

PORT = "DOUBLE_PORT"
PATH = "/text/analytics/v3.1/sentiment"


def setting(name: str) -> str:
    """The value of a setting: of an argument, else of the environment."""
    given = [each.partition("=") for each in sys.argv[1:]]
    named = {key.lower(): value for key, _, value in given}
    found = {key.lower(): value for key, value in os.environ.items()} | named
    return found.get(name.lower(), "")


def main() -> None:
    """Serve until the process ends; exit with 1 and say why if a setting is missing."""
    if setting("Eula") != "accept":
        sys.exit("Missing EULA=accept command line option. You must provide this to continue.")
    if not setting("Billing").startswith("https://"):
        sys.exit("Invalid Billing Endpoint URI.")
    if not setting("ApiKey"):
        sys.exit("Missing ApiKey command line option. You must provide this to continue.")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ[PORT])), Handler)
    sys.stdout.write(f"Now listening on: http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        known = setting("ApiKey") == os.environ[KNOWN_KEY]
        said = "Api Key is valid, no action needed." if known else "Api Key is invalid."
        if self.path == "/status":
            status = {"apiStatus": "Valid" if known else "Invalid", "apiStatusMessage": said}
            self.answer(200, {"service": "sentiment", **status})
        elif self.path == "/ready":
            self.answer(200 if known else 503, {"service": "sentiment", "ready": "ready" * known})
        else:
            self.answer(200 if self.path == "/" else 404, {})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != PATH:
            self.answer(404, refusal("NotFound", "Resource Not Found."))
        elif setting("ApiKey") != os.environ[KNOWN_KEY]:
            self.answer(401, refusal("NoCredit", "Api Key is invalid."))
        else:
            self.answer(*judged(content))

    def answer(self, status: int, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def refusal(code: str, message: str) -> dict[str, object]:
    return {"error": {"code": code, "message": message}}


def judged(content: bytes) -> tuple[int, object]:
    """The status and the answer to the documents of a request."""
    try:
        documents = json.loads(content)["documents"]
        ids = [each["id"] for each in documents]
    except (ValueError, KeyError, TypeError):
        return 400, refusal("InvalidRequest", "Invalid Request.")
    if not ids or len(ids) > MOST_DOCUMENTS or len(set(ids)) < len(ids):
        return 400, refusal("InvalidRequest", "Invalid document in request.")
    found, errors = [], []
    for each in documents:
        text = each.get("text", "")
        if not text.strip() or len(text) > MOST_CHARACTERS:
            errors.append({"id": each["id"], **refusal("InvalidArgument", "Invalid document.")})
        else:
            found.append({"id": each["id"], **scored(text), "warnings": []})
    return 200, {"documents": found, "errors": errors, "modelVersion": "2020-04-01"}


def scored(text: str) -> dict[str, Any]:
    words = [each.strip(".,!?").lower() for each in text.split()]
    counts = {"positive": sum(each in GOOD for each in words)}
    counts |= {"neutral": 0, "negative": sum(each in BAD for each in words)}
    counts["neutral"] = not (counts["positive"] or counts["negative"])
    total = sum(counts.values())
    scores = {name: round(count / total, 2) for name, count in counts.items()}
    best = max(scores, key=lambda name: scores[name])
    sentence = {"sentiment": best, "confidenceScores": scores, "offset": 0, "length": len(text)}
    return {**sentence, "sentences": [{**sentence, "text": text}]}


if __name__ == "__main__":
    main()
