"""The JSON Schemas of what commands print, for tests of documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SCHEMAS = Path(__file__).resolve().parents[1] / "docs" / "reference" / "schemas" / "cli"
SUFFIX = ".schema.json"
NAMES = sorted(path.name.removesuffix(SUFFIX) for path in SCHEMAS.iterdir())


def schema(name: str) -> dict[str, Any]:
    """A command's schema, which is a valid one."""
    found: dict[str, Any] = json.loads((SCHEMAS / f"{name}{SUFFIX}").read_text("utf-8"))
    Draft202012Validator.check_schema(found)
    return found


def validator(name: str) -> Draft202012Validator:
    """What checks a command's document; a schema may refer to another one beside it."""
    others = ((f"{each}{SUFFIX}", Resource.from_contents(schema(each))) for each in NAMES)
    registry: Registry[Any] = Registry().with_resources(others)
    return Draft202012Validator(schema(name), registry=registry)
