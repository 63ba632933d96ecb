"""How this mlpack was installed, for hints that say how to add a part of it."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "mlpack-edge"


def install_command(extra: str) -> str:
    """Return the command that installs mlpack again with ``extra``, from where it came from.

    pip records the file, folder or URL (PEP 610); pipx and uv leave a file of their own in the
    environments that they make.
    """
    prefix = Path(sys.prefix)
    requirement = requirement_with(extra, _direct_url())
    if (prefix / "pipx_metadata.json").is_file():
        return f"pipx install --force {requirement}"
    if (prefix / "uv-receipt.toml").is_file():
        return f"uv tool install --force {requirement}"
    return f"pip install {requirement}"


def requirement_with(extra: str, direct_url: str | None) -> str:
    """Return mlpack's requirement, quoted for a shell; ``direct_url`` is PEP 610's document.

    >>> requirement_with("serve", None)
    "'mlpack-edge[serve]'"
    >>> requirement_with("serve", '{"url": "file:///src/mlpack", "dir_info": {"editable": true}}')
    "-e '/src/mlpack[serve]'"
    >>> requirement_with("azure", '{"url": "https://example.com/a.whl", "archive_info": {}}')
    "'mlpack-edge[azure] @ https://example.com/a.whl'"
    """
    try:
        document = json.loads(direct_url or "")
        url, folder = str(document["url"]), document.get("dir_info")
    except (ValueError, KeyError, TypeError):
        return f"'{DISTRIBUTION}[{extra}]'"
    parts = urlsplit(url)
    if parts.scheme == "file":
        editable = "-e " if isinstance(folder, dict) and folder.get("editable") else ""
        return f"{editable}'{unquote(parts.path)}[{extra}]'"
    vcs = (document.get("vcs_info") or {}).get("vcs")
    return f"'{DISTRIBUTION}[{extra}] @ {f'{vcs}+' if vcs else ''}{_without_login(url)}'"


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _direct_url() -> str | None:
    try:
        return distribution(DISTRIBUTION).read_text("direct_url.json")
    except PackageNotFoundError:
        return None
