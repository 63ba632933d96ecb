"""YAML as mlpack writes it: keys in the order they were put, no anchors, texts quoted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import yaml


class _Plain(yaml.SafeDumper):
    """Writes a repeated value each time, without YAML anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists below their key, as people do."""
        return super().increase_indent(flow, False)


def dump(documents: Iterable[Mapping[str, object]]) -> str:
    """The documents, one after the other.

    >>> print(dump([{"b": "1.0", "a": [True]}]), end="")
    b: '1.0'
    a:
      - true
    """
    return yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=1000)
