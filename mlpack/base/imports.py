"""Which imported modules the packages of a base seem to lack.

A package's name need not be that of its modules, and a lock has names of packages only. So this is
a first look: ``mlpack build`` starts the release, which imports them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from packaging.utils import canonicalize_name

_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "Crypto": ("pycryptodome",),
    "OpenSSL": ("pyopenssl",),
    "PIL": ("pillow",),
    "attr": ("attrs",),
    "bs4": ("beautifulsoup4",),
    "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
    "dateutil": ("python-dateutil",),
    "dotenv": ("python-dotenv",),
    "faiss": ("faiss-cpu", "faiss-gpu"),
    "google": ("protobuf",),
    "jwt": ("pyjwt",),
    "magic": ("python-magic",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "paho": ("paho-mqtt",),
    "pkg_resources": ("setuptools",),
    "serial": ("pyserial",),
    "skimage": ("scikit-image",),
    "sklearn": ("scikit-learn",),
    "tflite_runtime": ("tflite-runtime", "ai-edge-litert"),
    "yaml": ("pyyaml",),
    "zmq": ("pyzmq",),
}
"""Packages by the module they provide, if its name is another."""


def missing(imports: Iterable[str], packages: Iterable[str]) -> dict[str, str]:
    """Return the imported modules that none of ``packages`` provides, with a package that does.

    The package is empty if it is not known: one that is called like a module may be anybody's.

    >>> missing(["PIL", "cv2", "utils", "azure"], ["pillow", "azure-core"])
    {'cv2': 'opencv-python-headless', 'utils': ''}
    """
    held = {canonicalize_name(each) for each in packages}
    found = {}
    for module in sorted(imports):
        names = _PACKAGES.get(module, (canonicalize_name(module),))
        # Packages of one namespace, such as google or azure, share its name.
        if held.isdisjoint(names) and not any(each.startswith(f"{names[0]}-") for each in held):
            found[module] = names[0] if module in _PACKAGES else ""
    return found
