"""Whether engines take an image that was found: what only its layers tell is read here.

Layers that mlpack wrote are known to unpack everywhere, and those in a registry are not fetched for
a look. So layers are read of images that another tool made, if they are on disk.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlpack.oci.image import Image
from mlpack.oci.unpacking import LayerFacts
from mlpack.plan.engines import EngineRule, engine
from mlpack.plan.refusals import Refusal
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import FoundImage
from mlpack.stores.records import MODEL
from mlpack.stores.store import Readable, Remote, images

MOST_BYTES = 256 * 1024 * 1024
"""Layers of an image that are read for a look, compressed; more would take minutes."""


def layer_facts(store: Readable, image: Image, rule: EngineRule) -> tuple[LayerFacts, ...]:
    """Read what the content of an image's layers tells; nothing where it is not read.

    Raises what reading a damaged or hostile layer raises.
    """
    size = sum(layer.size for layer in image.layers)
    if isinstance(store, Remote) or MODEL in image.labels or size > MOST_BYTES:
        return ()
    from mlpack.stores.trees import read_tree

    return read_tree(store, image.layers, unpacking=rule.support.unpacking).lasting_facts


def found_refusals(rule: EngineRule, found: FoundImage) -> tuple[Refusal, ...]:
    """Return why devices with ``rule``'s engine do not take the image that was found."""
    facts = layer_facts(found.store, found.image, rule)
    return rule.refusals(found.image, found.index, facts)


def all_refusals(rule: EngineRule, found: FoundImage) -> tuple[Refusal, ...]:
    """As :func:`found_refusals`, for the images of every platform; each reason once."""
    reasons: dict[Refusal, None] = {}
    for image in images(found.store, found.target):
        facts = layer_facts(found.store, image, rule)
        reasons.update(dict.fromkeys(rule.refusals(image, found.index, facts)))
    return tuple(reasons)


def named_engines(project: ProjectDirectory) -> Sequence[EngineRule]:
    """Return the engines of the project's devices, as far as mlpack.toml names them.

    They are those of its device groups, or of ``[device] engine``; none if it has neither.
    """
    settings = project.settings
    groups = settings.deploy.groups.values()
    names = [each.engine or settings.device.engine for each in groups]
    if not names and settings.engine_named:
        names = [settings.device.engine]
    return [engine(name) for name in dict.fromkeys(names)]
