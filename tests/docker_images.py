"""Images with Docker's media types, made of those with OCI's."""

from __future__ import annotations

import json

from mlpack.oci.conversion import OCI_TYPES
from mlpack.oci.descriptor import Descriptor, parse
from mlpack.stores.store import DOCUMENTS, Store, put_bytes, read

DOCKER_TYPES = {oci: docker for docker, oci in OCI_TYPES.items()}


def as_docker(store: Store, root: Descriptor) -> Descriptor:
    """Add the image or index ``root`` of ``store`` with Docker's media types to ``store``."""
    document = json.loads(read(store, root))
    document["mediaType"] = DOCKER_TYPES[root.media_type]
    named = document.get("manifests") or [document["config"], *document["layers"]]
    for each in named:
        if each["mediaType"] in DOCUMENTS:
            target = Descriptor.from_json(parse(json.dumps(each).encode(), "entry"))
            each |= as_docker(store, target).to_json()
        each["mediaType"] = DOCKER_TYPES.get(each["mediaType"], each["mediaType"])
    return put_bytes(store, json.dumps(document, indent=3).encode(), document["mediaType"])


def families(store: Store, root: Descriptor) -> set[str]:
    """Whose media types the documents at and below ``root`` have: ``oci``, ``docker`` or both."""
    document = json.loads(read(store, root))
    named = document.get("manifests") or [document["config"], *document["layers"]]
    kinds = {document.get("mediaType", root.media_type), *(each["mediaType"] for each in named)}
    found = {"docker" if each in OCI_TYPES else "oci" for each in kinds}
    for each in named:
        if each["mediaType"] in DOCUMENTS:
            target = Descriptor.from_json(parse(json.dumps(each).encode(), "entry"))
            found |= families(store, target)
    return found
