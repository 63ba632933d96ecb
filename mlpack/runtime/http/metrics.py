"""``/metrics``: what a module counts and is, in the formats of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..module import Module


def exposition(module: Module, accept: str) -> tuple[str, bytes]:
    """Content type and text of the figures, in the format that ``accept`` asks for."""
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    class Collector:
        def collect(self) -> Iterator[Any]:
            yield from module.metrics.families()
            yield from _state(module)

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Collector())
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


def _state(module: Module) -> Iterator[Any]:
    """What holds now, and what the module is."""
    from prometheus_client import core

    yield core.GaugeMetricFamily("mlpack_queue_depth", "Requests waiting.", module.depth)
    yield core.GaugeMetricFamily(
        "mlpack_load_seconds", "From the start of loading to ready.", module.load_seconds
    )
    yield core.GaugeMetricFamily("mlpack_ready", "1 where it scores.", float(module.ready))
    names = ["name", "version", "digest", "loaded"]
    model = core.GaugeMetricFamily("mlpack_model_info", "The model.", labels=names)
    model.add_metric([getattr(module.identity, name) for name in names], 1)
    yield model
