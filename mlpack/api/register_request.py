"""The request of ``mlpack register``; :mod:`mlpack.api.requests` has the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from decimal import Decimal
from pathlib import Path

_Text = Mapping[str, str]


@dataclass(frozen=True)
class Register:
    """Keep the model at ``path`` (or ``azureml:NAME:VERSION``) as a version."""

    path: Path | str
    _: KW_ONLY
    name: str = ""
    version: str = ""
    scoring: Path | str | None = None
    """The scoring script; ``None`` takes the one in mlpack.toml."""

    code: Path | str | None = None
    """The source directory that is shipped with the script; without one, the modules that the
    script imports."""

    tags: _Text = field(default_factory=dict)
    metrics: Mapping[str, str | float] = field(default_factory=dict)
    metrics_file: Path | str | None = None
    """A JSON object of numbers."""

    source_commit: str = ""
    trust_pickle: bool = False
    features: int | None = None
    """Input columns of an estimator that does not say."""

    check: Path | str | None = None
    """Rows to compare an estimator and its conversion on (.npz, .csv); else mlpack makes some."""

    max_error: float = 1e-3
    """How far probabilities may be off; other numbers relative to their size."""

    max_unequal: Decimal | float = 0.0
    """Share of rows (0 to 1) that may get another label."""

    workspace: str = ""
    """``SUBSCRIPTION/GROUP/WORKSPACE`` of Azure ML, or the path of a ``config.json``."""
