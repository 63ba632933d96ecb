"""What answered instead of a registry: a login page, another web page, or some other document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from mlpack.registry.http_types import RegistryError, Request, Response

_ENOUGH = 16 * 1024
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_START = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_LOGIN = re.compile(rb"type\s*=\s*[\"']?password|\b(?:log|sign)[ -]?(?:in|on)\b", re.IGNORECASE)
_LOGIN_PATH = re.compile(r"log-?in|sign-?in|sso|saml|oauth|/auth\b", re.IGNORECASE)


class NotARegistry(RegistryError):
    """An answer that no registry gives, where one of a registry is needed."""

    hint = (
        "check the registry's name and port; a website, a proxy or the login page of a network "
        "may answer in its place"
    )


def web_page(headers: Mapping[str, str], content: bytes = b"", url: str = "") -> str:
    """Return which kind of web page an answer is, or ``""`` for any other answer.

    >>> web_page({"content-type": "text/html; charset=utf-8"}, b"<input type=password>")
    'a login page'
    >>> web_page({}, b"<!DOCTYPE html><h1>It works!"), web_page({}, b"{}")
    ('a web page', '')
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _HTML and not _START.match(content):
        return ""
    login = _LOGIN.search(content) or _LOGIN_PATH.search(urlsplit(url).path)
    return "a login page" if login else "a web page"


def beginning(response: Response) -> bytes:
    """Read enough of a response to tell what it is; the rest is left."""
    found = b""
    with suppress(RegistryError):
        for chunk in response.chunks:
            found += chunk
            if len(found) >= _ENOUGH:
                break
    return found


def not_a_registry(
    request: Request, response: Response, content: bytes, problem: str
) -> NotARegistry:
    """Return the error for ``content``, with ``problem`` unless it is a web page."""
    page = web_page(response.headers, content, response.url)
    said = f"{page} answered instead of a registry" if page else f"the registry answers {problem}"
    return NotARegistry(f"{request}: {said}")


def require_no_web_page(request: Request, response: Response) -> None:
    """Raise :class:`NotARegistry` if a successful response is a web page."""
    content = beginning(response)
    if web_page(response.headers, content, response.url):
        raise not_a_registry(request, response, content, "a web page")
