"""Raw requests as Azure ML's scripts know them, without Flask.

Behaviour: azureml-inference-server-http 1.5.1, ``api/aml_request.py`` and
``api/aml_response.py``; what scripts read of a request is Flask's ``Request``.
"""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import parse_qs

from .scorer import JSON, Payload, Reply

_Run = TypeVar("_Run", bound=Callable[..., object])


class Headers(dict[str, str]):
    """Headers by name, in whatever case."""

    def __init__(self, items: Mapping[str, str]) -> None:
        super().__init__({title(name): value for name, value in items.items()})

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(title(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(title(str(name)))

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """The value, or ``default``."""
        return super().get(title(name), default)


class Values(dict[str, str]):
    """Query arguments or form fields; the first of each name."""

    def __init__(self, text: str) -> None:
        self._all = parse_qs(text, keep_blank_values=True)
        super().__init__({name: values[0] for name, values in self._all.items()})

    def getlist(self, name: str) -> list[str]:
        """All values of ``name``."""
        return self._all.get(name, [])


class File(io.BytesIO):
    """A file sent in a form."""

    filename: str = ""
    content_type: str = "application/octet-stream"

    @property
    def stream(self) -> File:
        """The file itself, as Werkzeug has it."""
        return self


class AMLRequest:
    """What a script reads of a request."""

    def __init__(self, payload: Payload) -> None:
        self.method = payload.method
        self.path = payload.path
        self.query_string = payload.query.encode()
        self.full_path = f"{payload.path}?{payload.query}"
        self.headers = Headers(payload.headers)
        self.content_type = payload.content_type
        self.mimetype = media_type(payload.content_type)
        self.data = payload.content
        self.content_length = len(payload.content)
        self.args = Values(payload.query)

    def get_data(self, cache: bool = True, as_text: bool = False, **_: object) -> Any:  # noqa: ANN401
        """The body, as bytes or as text."""
        return self.data.decode("utf-8", "replace") if as_text else self.data

    @property
    def stream(self) -> io.BytesIO:
        """The body as a file."""
        return io.BytesIO(self.data)

    @property
    def url(self) -> str:
        """The request's address."""
        query = self.query_string.decode()
        host = self.headers.get("Host", "localhost")
        return f"http://{host}{self.path}" + (f"?{query}" if query else "")

    @property
    def is_json(self) -> bool:
        """Whether the content type says so."""
        return self.mimetype == JSON or self.mimetype.endswith("+json")

    @property
    def json(self) -> Any:  # noqa: ANN401
        """The body, parsed."""
        return self.get_json()

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:  # noqa: ANN401
        """The body, parsed; ``None`` where it is no JSON and ``silent``."""
        if not (force or self.is_json):
            if silent:
                return None
            raise ValueError("the request's content type is not application/json")
        try:
            return json.loads(self.data)
        except ValueError:
            if silent:
                return None
            raise

    @property
    def form(self) -> Mapping[str, str]:
        """The fields of a form."""
        if self.mimetype == "application/x-www-form-urlencoded":
            return Values(self.data.decode("utf-8", "replace"))
        return {
            name: each.getvalue().decode("utf-8", "replace")
            for name, each in self._parts()
            if not each.filename
        }

    @property
    def files(self) -> Mapping[str, File]:
        """The files of a form."""
        return {name: each for name, each in self._parts() if each.filename}

    def _parts(self) -> Iterator[tuple[str, File]]:
        """The parts of ``multipart/form-data`` (RFC 7578)."""
        boundary = _parameter(self.content_type, "boundary")
        if self.mimetype != "multipart/form-data" or not boundary:
            return
        for part in (b"\r\n" + self.data).split(b"\r\n--" + boundary.encode())[1:]:
            head, split, content = part.partition(b"\r\n\r\n")
            if not split:
                continue
            found = File(content)
            name = ""
            for line in head.decode("utf-8", "replace").split("\r\n"):
                key, _, value = line.partition(":")
                if key.lower() == "content-disposition":
                    name = _parameter(value, "name")
                    found.filename = _parameter(value, "filename")
                elif key.lower() == "content-type":
                    found.content_type = value.strip()
            yield name, found


class AMLResponse:
    """What a script answers, with its own status and headers."""

    def __init__(
        self,
        message: object,
        status_code: int,
        response_headers: Mapping[str, str] | None = None,
        json_str: bool = False,
        run_function_failed: bool = False,
    ) -> None:
        if message is None or json_str:
            self.data = json.dumps({} if message is None else message).encode()
            content_type = JSON
        else:
            self.data = message if isinstance(message, bytes) else str(message).encode()
            content_type = "text/html; charset=utf-8"  # Flask's default, which Azure ML leaves
        self.status_code = status_code
        self.headers = Headers(response_headers or {})
        self.headers.setdefault("Content-Type", content_type)
        self.run_function_failed = run_function_failed or status_code >= 500

    def get_data(self) -> bytes:
        """The body."""
        return self.data

    def reply(self) -> Reply:
        """The same, as this runtime answers."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        headers["x-ms-run-function-failed"] = str(self.run_function_failed)
        return Reply(
            status=self.status_code,
            content=self.data,
            content_type=headers.pop("content-type"),
            headers=headers,
        )


def install() -> list[Callable[..., object]]:
    """Let scripts import these under the names that Azure ML's packages have.

    Returns the functions that ``@rawhttp`` marks from now on.
    """
    marked: list[Callable[..., object]] = []

    def rawhttp(run: _Run) -> _Run:
        marked.append(run)
        return run

    for package in ("azureml.contrib.services", "azureml_inference_server_http.api"):
        parts = package.split(".")
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[:count])
            if name not in sys.modules and not _installed(name):
                parent = ModuleType(name)
                parent.__path__ = []
                _put(parent)
        for leaf in ("aml_request", "aml_response"):
            module = ModuleType(f"{package}.{leaf}")
            vars(module).update(rawhttp=rawhttp, AMLRequest=AMLRequest, AMLResponse=AMLResponse)
            _put(module)
    return marked


def _put(module: ModuleType) -> None:
    sys.modules[module.__name__] = module
    parent, _, leaf = module.__name__.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], leaf, module)


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def title(name: str) -> str:
    """A header's name as Azure ML's scripts see it.

    >>> title("x-ms-request-id")
    'X-Ms-Request-Id'
    """
    return "-".join(word.capitalize() for word in name.split("-"))


def media_type(content_type: str) -> str:
    """A content type without its parameters.

    >>> media_type("application/JSON; charset=utf-8")
    'application/json'
    """
    return content_type.partition(";")[0].strip().lower()


def _parameter(value: str, name: str) -> str:
    """One parameter of a header's value, or nothing.

    >>> _parameter('form-data; name="a;b"; filename=x.png', "name")
    'a;b'
    """
    from email.message import Message

    message = Message()
    message["content-type"] = value if "/" in value.partition(";")[0] else f"x/{value.strip()}"
    found = message.get_param(name)
    return found if isinstance(found, str) else ""
