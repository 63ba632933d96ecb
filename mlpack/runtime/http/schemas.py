"""JSON schemas of what a module takes, in the part that OpenAPI 3.0 and 3.1 read alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..signature import Tensor
from .oip_tensors import DTYPES, KINDS

Schema = Mapping[str, object]

_MOST_SHOWN = 64
"""Elements of an example."""

ANY: Schema = {"description": "Any JSON value: what the scoring script takes or gives."}
NUMBER: Schema = {"type": "number"}
TEXT: Schema = {"type": "string"}
TRUTH: Schema = {"type": "boolean"}
BYTES: Schema = {"type": "string", "format": "binary"}


def shape_of(properties: Mapping[str, Schema], *, optional: Sequence[str] = ()) -> Schema:
    """An object with these properties; all but the optional ones must be there."""
    required = [name for name in properties if name not in optional]
    made: dict[str, object] = {"type": "object", "properties": dict(properties)}
    # OpenAPI 3.0 allows no empty list here.
    return {**made, "required": required} if required else made


def list_of(items: Schema, *, least: int = 0, most: int | None = None) -> Schema:
    """A list; no more than ``most`` long where that is given."""
    made: dict[str, object] = {"type": "array", "items": items}
    if least:
        made["minItems"] = least
    return made if most is None else {**made, "maxItems": most}


def element(datatype: str) -> Schema:
    """One element of a tensor, with the range that its type has.

    >>> element("UINT8")
    {'type': 'integer', 'minimum': 0, 'maximum': 255}
    """
    if datatype == "BYTES":
        return TEXT
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind == "b":
        return TRUTH
    if datatype == "FP64":
        return NUMBER
    if dtype.kind == "f":
        # All that rounds to a number of the type is taken.
        about = np.finfo(dtype)
        half_a_step = math.ldexp(1.0, about.maxexp - about.nmant - 2)
        most = math.nextafter(float(about.max) + half_a_step, 0)
        return {**NUMBER, "minimum": -most, "maximum": most}
    limits = np.iinfo(dtype)
    return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}


def nested(tensor: Tensor) -> Schema:
    """The lists of lists that a tensor is in JSON."""
    datatype = KINDS.get(tensor.kind)
    schema: Schema = ANY if datatype is None else element(datatype)
    for size in reversed(tensor.shape):
        fixed = size if isinstance(size, int) else None
        # A tensor without elements is refused.
        schema = list_of(schema, least=1 if fixed is None else fixed, most=fixed)
    return schema


def readings(fields: Sequence[str], ranges: Mapping[str, Sequence[float]]) -> Schema:
    """``{"params": [...]}`` with one number for each field; ranges are usual, not required."""
    numbers = list_of(NUMBER, least=len(fields), most=len(fields))
    told = [
        f"{each} (from {ranges[each][0]:g} to {ranges[each][1]:g})" if each in ranges else each
        for each in fields
    ]
    schema = shape_of({"params": {**numbers, "description": f"In this order: {', '.join(told)}."}})
    usual = [ranges[each][2] if each in ranges else 0 for each in fields]
    return {**schema, "example": {"params": usual}}


def by_name(inputs: Sequence[Tensor]) -> Schema:
    """The tensors of a model by name; where it takes only one, also as ``data``."""
    schema = shape_of({each.name: nested(each) for each in inputs})
    examples = {each.name: example(each) for each in inputs}
    if len(inputs) == 1 and inputs[0].name != "data":
        schema = {"anyOf": [shape_of({"data": nested(inputs[0])}), schema]}
        examples = {"data": examples[inputs[0].name]}
    return schema if None in examples.values() else {**schema, "example": examples}


def example(tensor: Tensor) -> object:
    """A small tensor of zeros as JSON has it; ``None`` for a large one, or one that JSON lacks."""
    shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
    if tensor.kind not in KINDS or math.prod(shape) > _MOST_SHOWN:
        return None
    datatype = KINDS[tensor.kind]
    zero = {"BYTES": "", "BOOL": False}.get(datatype, 0)
    return np.full(shape, zero, dtype=object).tolist()


def ref(name: str) -> Schema:
    """A schema by its name in the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def answer(description: str, schema: Schema, kind: str = "application/json") -> Schema:
    """An answer with one kind of body."""
    return {"description": description, "content": {kind: {"schema": schema}}}


def get(
    operation: str, summary: str, schema: Schema = TEXT, *, text: bool = False
) -> dict[str, object]:
    """An operation that is answered with 200 and JSON of ``schema``, or with text."""
    found = answer("As text.", TEXT, "text/plain") if text else answer("As JSON.", schema)
    return {"operationId": operation, "summary": summary, "responses": {"200": found}}
