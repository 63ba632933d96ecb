"""Pictures from requests: bounded before they are decoded, and blamed on the request if broken."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from .problems import BadRequest, TooLarge
from .settings import NotServable

if TYPE_CHECKING:
    from PIL.Image import Image

TYPES = {"image/jpeg": "JPEG", "image/jpg": "JPEG", "image/png": "PNG"}
"""Content types of pictures, and Pillow's names for them."""

_FIELD = "image"


def require_pillow() -> None:
    """Import Pillow; raise :class:`~.settings.NotServable` where the base has none."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise NotServable(
            "score.py has run_image(), but Pillow is not in the base: add pillow to requirements.in"
        ) from error


def open_image(content: bytes, content_type: str, max_pixels: int) -> Image:
    """Open a picture; its pixels are decoded when they are first used.

    Raises :class:`BadRequest`, and :class:`TooLarge` for more than ``max_pixels``;
    decoding later raises :class:`BadRequest` too.
    """
    import PIL.Image

    try:
        with warnings.catch_warnings():
            # Our own bound follows.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            image = PIL.Image.open(io.BytesIO(content), formats=[TYPES[content_type]])
    except PIL.Image.DecompressionBombError as error:
        raise _too_large(max_pixels) from error
    except Exception as error:  # Pillow's readers raise many kinds for what is broken
        raise BadRequest(f"the request is no {TYPES[content_type]}", field=_FIELD) from error
    if image.width * image.height > max_pixels:
        raise _too_large(max_pixels)
    _guard(image)
    return image


def _guard(image: Image) -> None:
    """Let a picture that cannot be decoded be the request's fault, wherever it is decoded."""
    decode = image.load

    def load() -> Any:  # noqa: ANN401
        try:
            return decode()
        except MemoryError:
            raise
        except Exception as error:
            raise BadRequest(f"the picture is broken: {error}", field=_FIELD) from error

    image.load = load  # type: ignore[method-assign]


def _too_large(max_pixels: int) -> TooLarge:
    return TooLarge(f"the picture has more than {max_pixels} pixels", field=_FIELD)
