"""Arrays in files in archives, as stable-baselines3 and Keras write them."""

from __future__ import annotations

import io
import zipfile

import numpy as np
from hypothesis import given

from mlpack.tensor_patch.spans import MAX_DEPTH
from tests.tensor_patch.spans.checks import by_name, damaged, sound, values
from tests.tensor_patch.spans.test_libraries import FILES
from tests.tensor_patch.spans.test_npy import saved as npy
from tests.tensor_patch.spans.test_torch import VALID, WEIGHT

TORCH = VALID[0]


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as writer:
        for name, content in members.items():
            writer.writestr(name, content)
    return file.getvalue()


SB3 = archive({"data": b"{}", "policy.pth": TORCH, "policy.optimizer.pth": TORCH})


def test_tensors_of_a_stable_baselines_model() -> None:
    spans = by_name(SB3)
    assert set(spans) == {
        f"{member}/{name}" for member in ("policy.pth", "policy.optimizer.pth") for name in "ab"
    }
    assert np.array_equal(values(SB3, spans["policy.pth/a"]), WEIGHT)


def test_weights_of_a_keras_model() -> None:
    content = archive({"config.json": b"{}", "model.weights.h5": FILES["earliest.h5"]})
    spans = by_name(content)
    kernel = spans["model.weights.h5/model_weights/dense_1/kernel:0"]
    assert values(content, kernel)[0, 0] == 1


def test_members_that_are_compressed_or_damaged_are_left_alone() -> None:
    members = {"a.npy": npy(WEIGHT)[:100], "b.npy": npy(WEIGHT), "c": b"text"}
    assert set(by_name(archive(members))) == {"b"}
    assert sound(archive(members, zipfile.ZIP_DEFLATED)) == ()


def test_archives_in_archives_end_somewhere() -> None:
    content = npy(WEIGHT)
    for _ in range(MAX_DEPTH):
        content = archive({"a.npy": content})
    assert len(sound(content)) == 1
    assert sound(archive({"a.npy": content})) == ()


@given(damaged([SB3]))
def test_a_damaged_file_is_sound(content: bytes) -> None:
    sound(content)
