"""What the registry refuses, in the words of the distribution specification."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlpack.errors import MlpackError

STATUS = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 416,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 413,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNSUPPORTED": 405,
}
"""HTTP status by error code (distribution-spec, *Error Codes*)."""


@dataclass
class Refused(MlpackError):
    """A request the registry does not do."""

    code: str
    message: str
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.message)

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return STATUS[self.code]

    def to_json(self) -> dict[str, object]:
        """The body of the answer."""
        return {"errors": [{"code": self.code, "message": self.message}]}
