"""The ways of bringing a device to a release, beside each other."""

from __future__ import annotations

from dataclasses import replace

from mlpack.api.diff import Move
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.oci.document import InvalidContent, Node
from mlpack.oci.image import Layer
from mlpack.plan.engines import Engine
from mlpack.plan.strategy import Way, one_layer, one_patch, usual_build, whole_image, with_layer
from mlpack.stores.project import Project
from mlpack.stores.records import read_record
from mlpack.stores.references import Found


def ways(project: Project, engine: Engine, move: Move) -> tuple[tuple[Way, ...], bool]:
    """All ways that can be worked out, dearest first, mlpack's own last.

    Also whether the usual build is among them: where the release is not on the locked base,
    it is not known which layers hold its dependencies.
    """
    pull = move.pull
    whole = whole_layer(project, move.new)
    # What a patch is compared with carries the model in one layer, as other builds do.
    full = replace(pull, image=with_layer(pull.image, whole)) if whole else pull
    found = [whole_image(engine, pull)]
    locked = project.lock().base.on(pull.image.platform) if project.has_lock else None
    held = move.old.image if move.old else None
    usual = usual_build(engine, full, held, locked.layers) if locked else None
    if usual:
        found.append(usual)
    found.append(one_layer(engine, full))
    if whole:
        found.append(one_patch(engine, pull))
    return tuple(found), usual is not None


def whole_layer(project: Project, release: Found) -> Layer | None:
    """The layer a patch release would have without its patch; ``None`` for other releases.

    Its record says that; where a release came without one, it is taken as it is.
    """
    if release.store is not project.layout:
        return None
    record = read_record(project.layout, release.target)
    if record.get("strategy") != "patch" or len(release.image.layers) < 2:
        return None
    try:
        node = Node(record, "record").need("whole")
        return Layer(Descriptor.from_json(node), Digest.from_json(node.need("diff_id")))
    except InvalidContent:
        return None
