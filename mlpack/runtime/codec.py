"""The one reader of requests, over any transport, and the writer of results.

A request becomes work for the worker, by its content type. JSON is read in one dialect for
``/score``, MQTT and IoT Edge (docs/reference/scoring.md); :mod:`.http.oip` reads the Open Inference
Protocol's own path with the same functions. Pictures have their size checked before they are
decoded; broken ones are bad requests.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from . import media_types, oip_messages, tensors
from .http_errors import BadRequest, ContentTooLarge, NotAcceptable, UnsupportedMediaType
from .json_arrays import reading
from .media_types import MediaType
from .scorer import JSON, Array, Payload, Reply, Scorer
from .settings import NotServable, RuntimeSettings
from .signature import Signature
from .worker import ScoringJob, Work

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = {"image/jpeg": "JPEG", "image/jpg": "JPEG", "image/png": "PNG"}
"""Pillow's formats by content type."""

PARAMS = "params"
"""The member of a request with the numbers of a script's fields, in their order."""

_REQUEST_MEMBERS = (PARAMS, tensors.DATA, oip_messages.INPUTS)
"""Members that show that a JSON object is a request and not a device's reading."""

_PRINTABLE = re.compile(r"[!-~]+")
_BINARY_TYPES = {tensors.OCTETS, tensors.NPY, *PICTURES}
_OFFERED = (JSON, tensors.OCTETS, tensors.NPY)
"""The content types of tensors in responses."""

_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def accepted_types(scorer: Scorer) -> tuple[str, ...]:
    """Return the content types of requests that ``scorer`` takes."""
    found = ["application/json"]
    if scorer.tensors:
        found += [tensors.OCTETS, tensors.NPY]
    if scorer.images:
        found += ["image/jpeg", "image/png"]
    return tuple(found)


def decode(payload: Payload, scorer: Scorer, settings: RuntimeSettings) -> Work:
    """Return the work that a request asks for; raise an :class:`~.http_errors.HttpError`."""
    media_type = media_types.parse(payload.content_type)
    if media_type.is_json and not scorer.raw:
        return _decode_json(payload, media_type, scorer, settings)
    kind = media_type.kind
    if kind in PICTURES and scorer.images:
        return Work(call=partial(_score_image, payload.content, kind, scorer, settings.max_pixels))
    if kind in (tensors.OCTETS, tensors.NPY) and scorer.tensors:
        return tensor_work(_decode_binary(payload, kind, scorer), scorer, settings)
    binary = kind in _BINARY_TYPES or kind.startswith("image/")
    if scorer.generic or (binary and not scorer.raw):
        accepted = ", ".join(accepted_types(scorer))
        raise UnsupportedMediaType(f"this module takes {accepted}, not {kind or 'that'}")
    if not scorer.raw:
        payload = replace(payload, content=_utf8(payload, media_type))
    return Work(call=partial(scorer.run, payload))


def _decode_json(
    payload: Payload, media_type: MediaType, scorer: Scorer, settings: RuntimeSettings
) -> Work:
    content = _utf8(payload, media_type)
    if scorer.generic:
        return _tensors_of(content, scorer, settings)
    if scorer.fields and b'"params"' not in content:
        content = _ordered(content, scorer.fields)
    if content is not payload.content:
        payload = replace(payload, content=content)
    return Work(call=partial(scorer.run, payload))


def _utf8(payload: Payload, media_type: MediaType) -> bytes:
    """Return the text of a request in UTF-8, as most are: without parameters or a byte order mark.

    Raises what :func:`~.media_types.to_utf8` raises.
    """
    content = payload.content
    if not media_type.parameters and content[:1] != b"\xef":
        return content
    return media_types.to_utf8(content, media_type)


def _tensors_of(content: bytes, scorer: Scorer, settings: RuntimeSettings) -> Work:
    """Return the work of a JSON request to a model without a script."""
    signature, allow_nan = require_signature(scorer), settings.allow_nan

    def read(document: object) -> Work:
        if oip_messages.is_request(document, signature):
            found = oip_messages.from_document(document, signature, allow_nan=allow_nan)
            return tensor_work(found.inputs, scorer, settings)
        return Work(tensors=tensors.from_json(document, signature, allow_nan=allow_nan))

    return reading(content, read, allow_nan=allow_nan)


def _ordered(content: bytes, fields: Sequence[str]) -> bytes:
    """Return a device's reading as a request; anything else as it is, for the script."""
    try:
        document = orjson.loads(content)
    except ValueError:
        return content
    if not is_reading(document) or not all(name in document for name in fields):
        return content
    return from_fields(document, fields)


def is_reading(document: object) -> bool:
    """Return whether a JSON document is a device's reading, with its fields by name."""
    return isinstance(document, dict) and not any(name in document for name in _REQUEST_MEMBERS)


def from_fields(document: Mapping[str, object], fields: Sequence[str]) -> bytes:
    """Return a device's reading as a request; raise :class:`BadRequest` if a field is missing.

    >>> from_fields({"sound": 48.5, "deviceID": "7", "rotation": 600}, ("rotation", "sound"))
    b'{"params":[600,48.5]}'
    """
    for name in fields:
        if name not in document:
            raise BadRequest(f"the message has no {name}", field=name)
    return orjson.dumps({PARAMS: [document[name] for name in fields]})


def tensor_work(given: Mapping[str, Array], scorer: Scorer, settings: RuntimeSettings) -> Work:
    """Return the work of a request's tensors, checked against the signature."""
    tensors.check(given, require_signature(scorer), allow_nan=settings.allow_nan)
    return Work(tensors=given)


def require_signature(scorer: Scorer) -> Signature:
    """Return the scorer's signature; raise :class:`~.http_errors.UnsupportedMediaType`."""
    if scorer.signature is None:
        raise UnsupportedMediaType("this module takes no tensors")
    return scorer.signature


def encode(job: ScoringJob, payload: Payload) -> object:
    """Return a job's result in the type that the request accepts: a JSON value or a ``Reply``.

    Raises :class:`NotAcceptable` if the request accepts nothing that the outputs can be sent in.
    """
    if job.tensors is None:
        return job.result
    problem = None
    for kind in media_types.preferred(payload.headers.get("accept", ""), _OFFERED):
        if kind == JSON:
            break
        try:
            return _encode_binary(job.result, kind)
        except NotAcceptable as error:
            problem = problem or error
    else:
        if problem is not None:
            raise problem
    return tensors.to_json(job.result)


def to_json(value: object) -> bytes:
    """Return ``value`` as JSON; raise :class:`TypeError` if it cannot be JSON.

    NaN and infinity become null. ``None`` becomes ``{}``, as in Azure ML.
    """
    if value is None:
        return b"{}"
    try:
        return orjson.dumps(value, option=_JSON_OPTIONS)
    except TypeError:
        # Whole numbers beyond 64 bits, texts that are not Unicode: Azure ML writes them.
        return json.dumps(value, default=_plain).encode()


def _plain(value: object) -> object:
    """Return an array that orjson does not take (not contiguous, of another type) as lists."""
    import numpy as np

    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _decode_binary(payload: Payload, kind: str, scorer: Scorer) -> dict[str, Array]:
    signature = require_signature(scorer)
    if kind == tensors.NPY:
        return tensors.from_npy(payload.content, signature)
    return tensors.from_octets(payload.content, payload.headers, signature)


def _score_image(content: bytes, kind: str, scorer: Scorer, max_pixels: int) -> object:
    return scorer.run_image(open_image(content, kind, max_pixels))


def _encode_binary(outputs: Mapping[str, object], kind: str) -> Reply:
    name, array = tensors.only_output(outputs)
    if kind == tensors.NPY:
        return Reply(content=tensors.to_npy(array), content_type=kind)
    headers = {
        # A name may hold any character, a line break too.
        "x-tensor-name": name if _PRINTABLE.fullmatch(name) else quote(name),
        "x-tensor-shape": ",".join(map(str, array.shape)),
        "x-tensor-type": str(array.dtype),
    }
    return Reply(content=tensors.to_octets(array), content_type=kind, headers=headers)


def require_pillow() -> None:
    """Import Pillow; raise :class:`~.settings.NotServable` if the base lacks it."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise NotServable(
            "score.py has run_image(), but Pillow is not in the base: add pillow to requirements.in"
            " and run mlpack base build"
        ) from error


def open_image(content: bytes, content_type: str, max_pixels: int) -> Image:
    """Open a picture; its pixels are decoded on first use.

    Raises :class:`BadRequest`, and :class:`ContentTooLarge` for more than ``max_pixels``;
    decoding later raises :class:`BadRequest` too.
    """
    import PIL.Image

    try:
        with warnings.catch_warnings():
            # The limit below replaces Pillow's.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            image = PIL.Image.open(io.BytesIO(content), formats=[PICTURES[content_type]])
    except PIL.Image.DecompressionBombError as error:
        raise _too_large(max_pixels) from error
    except Exception as error:  # Pillow raises many kinds of errors for broken files
        raise BadRequest(f"the request is not a {PICTURES[content_type]}", field="image") from error
    if image.width * image.height > max_pixels:
        raise _too_large(max_pixels)
    _guard(image)
    return image


def _guard(image: Image) -> None:
    """Raise :class:`BadRequest` if decoding fails, wherever the picture is decoded."""
    decode = image.load

    def load() -> Any:  # noqa: ANN401
        try:
            return decode()
        except MemoryError:
            raise
        except Exception as error:
            raise BadRequest(f"the picture is broken: {error}", field="image") from error

    image.load = load  # type: ignore[method-assign]


def _too_large(max_pixels: int) -> ContentTooLarge:
    return ContentTooLarge(f"the picture has more than {max_pixels} pixels", field="image")
