"""``GET /`` for a browser: a page to try the model with, all of it in one file.

Programs get ``Healthy``, as from Azure ML's servers. The page may load and send
only what this server gives: its policy names the one script and the one style
by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .score import healthy

if TYPE_CHECKING:
    from ..module import Module

_FACTS = '<script type="application/json" id="module">{}</script>'
_ABOUT_DIGEST = 12


def routes(module: Module) -> list[Route]:
    """The one path of this part."""
    page = render(module)
    headers = {
        "Content-Security-Policy": policy(page),
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept",
        "X-Content-Type-Options": "nosniff",
    }

    async def root(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return Response(page, headers=headers, media_type="text/html")
        found = healthy(module)
        found.headers["Vary"] = "Accept"
        return found

    return [Route("/", root, methods=["GET"])]


def render(module: Module) -> str:
    """The page for this module."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return page.replace(_FACTS, _FACTS.replace("{}", _text(_facts(module))))


def policy(page: str) -> str:
    """The content security policy: nothing but what is in the page, and this server."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(page, 'script')}",
            f"style-src {_hash(page, 'style')}",
            "connect-src 'self'",
            "img-src blob: data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _facts(module: Module) -> dict[str, object]:
    """What the page must know to ask for the right input."""
    scorer, identity = module.scorer, module.identity
    digest = identity.digest[: len("sha256:") + _ABOUT_DIGEST]
    when = identity.loaded.replace("T", " ").removesuffix("Z")
    loaded = f"loaded {when} UTC" if when else ""
    inputs = scorer.signature.inputs if scorer.signature else ()
    return {
        "name": identity.name,
        "version": identity.version,
        "about": " \u00b7 ".join(each for each in (digest, loaded) if each),
        "images": scorer.images,
        "fields": scorer.fields,
        "ranges": dict(scorer.ranges),
        "generic": scorer.generic,
        "inputs": [{"name": i.name, "kind": i.kind, "shape": i.shape} for i in inputs],
        "most": module.settings.max_body,
    }


def _text(value: object) -> str:
    """JSON that may stand in a page: a ``</script>`` in a name must not end it."""
    return orjson.dumps(value).decode().replace("<", "\\u003c")


def _hash(page: str, tag: str) -> str:
    # Browsers hash the text as it stands between the tags.
    found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    text = found[1] if found else ""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
