"""``GET /`` for a browser: a page to try the model with, in one file.

Programs get ``Healthy``, as from Azure ML's servers. The page's content security policy allows
only this server, and the page's script and style by their hashes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .. import codec, media_types, tensors
from ..scorer import Payload
from .form import Form, forms
from .form import request as first_request

if TYPE_CHECKING:
    from ..scoring_service import ScoringService

_FACTS = '<script type="application/json" id="module">{}</script>'
_ABOUT_DIGEST = 12
_TRIAL_SECONDS = 5.0
"""How long a browser waits for the first page while requests are tried."""


def routes(service: ScoringService) -> list[Route]:
    """Return the route of the page."""
    headers = {
        "Content-Security-Policy": policy(_template()),
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept",
        "X-Content-Type-Options": "nosniff",
    }
    trial = _Trial(service)

    async def root(request: Request) -> Response:
        if media_types.names(request.headers.get("accept", ""), "text/html"):
            page = render(service, await trial.form())
            return Response(page, headers=headers, media_type="text/html")
        found = healthy(service)
        found.headers["Vary"] = "Accept"
        return found

    return [Route("/", root, methods=["GET"])]


class _Trial:
    """The search for a first request that scores, made when a browser first asks for the page."""

    def __init__(self, service: ScoringService) -> None:
        self._service = service
        self._found: asyncio.Task[object] | None = None

    async def form(self) -> Form:
        """Return the form; the likeliest one if the trial takes long or cannot be made now."""
        if self._found is None or self._found.cancelled() or _failed(self._found):
            trial = partial(first_that_scores, self._service)
            self._found = asyncio.create_task(self._service.try_out(trial))
        await asyncio.wait([self._found], timeout=_TRIAL_SECONDS)
        if self._found.done() and not _failed(self._found):
            found = self._found.result()
            if isinstance(found, Form):
                return found
        return await run_in_threadpool(next, forms(self._service.scorer))


def _failed(task: asyncio.Task[object]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def first_that_scores(service: ScoringService) -> Form:
    """Return the first form whose request scores, else the likeliest; on the thread that scores.

    Scripts are not called: a request may have effects.
    """
    likeliest = None
    for form in forms(service.scorer):
        likeliest = likeliest or form
        if not service.scorer.generic or _scores(form, service):
            return form
    return likeliest or Form()


def _scores(form: Form, service: ScoringService) -> bool:
    made = first_request(form)
    if made is None:
        return True
    payload = Payload(content=made.content, content_type=made.content_type, headers=made.headers)
    try:
        work = codec.decode(payload, service.scorer, service.settings)
        codec.to_json(tensors.to_json(service.scorer.run_tensors(work.tensors or {})))
    except Exception:  # models fail with many kinds of errors
        return False
    return True


def healthy(service: ScoringService) -> Response:
    """Return Azure ML's word for healthy, or 503 with the reason."""
    if service.ready:
        return PlainTextResponse("Healthy")
    return PlainTextResponse("stopping" if service.live else "scoring hangs", 503)


def render(service: ScoringService, form: Form) -> str:
    """Return the page for this module."""
    return _template().replace(_FACTS, _FACTS.replace("{}", _text(_facts(service, form))))


def _template() -> str:
    return Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def policy(page: str) -> str:
    """Return the content security policy: only the page's own parts and this server."""
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


def _facts(service: ScoringService, form: Form) -> dict[str, object]:
    """Return what the page must know to ask for the right input."""
    identity = service.identity
    digest = identity.digest[: len("sha256:") + _ABOUT_DIGEST]
    when = identity.loaded.replace("T", " ").removesuffix("Z")
    loaded = f"loaded {when} UTC" if when else ""
    return {
        "name": identity.name,
        "version": identity.version,
        "about": " \u00b7 ".join(each for each in (digest, loaded) if each),
        "form": form,
        "nan": service.settings.allow_nan,
        "most": service.settings.max_body,
    }


def _text(value: object) -> str:
    """Return JSON that is safe in a page, even with a ``</script>`` in a name."""
    return orjson.dumps(value).decode().replace("<", "\\u003c")


def _hash(page: str, tag: str) -> str:
    # Browsers hash the exact text between the tags.
    found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    text = found[1] if found else ""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
