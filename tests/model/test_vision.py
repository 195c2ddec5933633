"""The vision stage is the reference's, whatever pictures come together, however padded."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.packed import pack
from minicpmo_ros.model.picture import batch
from minicpmo_ros.model.vision import VisionStage
from tests.model.vision_stage import REFERENCE, shown, tensors, vision_stage

CAMERA, UPRIGHT, WIDE = (640, 480), (480, 640), (1280, 720)


def relative_error(found: torch.Tensor, expected: torch.Tensor | np.ndarray) -> float:
    """Largest difference, as a share of the largest expected magnitude."""
    expected = torch.as_tensor(expected).float()
    assert found.shape == expected.shape
    return float((found.float() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    "size, max_slices", [(CAMERA, 1), ((448, 448), 1), (UPRIGHT, 1), (WIDE, 4)]
)
def test_embeddings_are_the_references(size: tuple[int, int], max_slices: int) -> None:
    found = vision_stage().look(shown(size, max_slices=max_slices))
    expected = REFERENCE[f"{size[0]}x{size[1]}_s{max_slices}"]
    assert relative_error(found[:, ::4], expected) < 1e-5


def test_a_batch_is_the_references():
    found = vision_stage().look(shown(CAMERA, UPRIGHT))
    assert relative_error(found[:, ::4], REFERENCE["batch_640x480_480x640"]) < 1e-5


@pytest.mark.parametrize(
    "sizes", [{"size": "wide", "seed": 1}, {"hidden": 128}], ids=["wide", "as wide as the LLM"]
)
def test_other_sizes_of_the_network(sizes: dict) -> None:
    stage = vision_stage(**sizes)
    found = stage.look(shown(CAMERA))
    assert found.shape == (1, *stage.resampler.query.shape)
    assert found.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_together_is_one_by_one(dtype: torch.dtype) -> None:
    stage = deepcopy(vision_stage()).to(dtype)
    parts = shown(CAMERA, (100, 30), UPRIGHT) + shown(WIDE, max_slices=2)
    one_by_one = torch.cat([stage.look([part]) for part in parts])
    assert relative_error(stage.look(parts), one_by_one) < (
        1e-5 if dtype == torch.float32 else 2e-2
    )


@pytest.mark.parametrize("patches", [1037, 1088, 2048])
def test_padding_changes_nothing(patches: int) -> None:
    stage, parts = vision_stage(), shown(CAMERA)
    padded = tensors(batch(parts, stage.side, patches))
    assert relative_error(stage(**padded), stage.look(parts)) < 1e-5


def test_what_stands_in_the_padding_is_never_seen():
    stage = vision_stage()
    padded = tensors(batch(shown((100, 30), (30, 30)), stage.side, 1280))
    expected = stage(**padded)
    for i, mask in enumerate(padded["mask"]):
        padded["pixels"][i, :, :, 14 * int(mask.sum()) :] = 7.0
        padded["position_ids"][i, ~mask] = 11
        padded["cells"][i, ~mask] = 5
    assert torch.equal(stage(**padded), expected)


def test_a_patch_that_moves_is_seen_elsewhere():
    stage = vision_stage()
    given = tensors(batch(shown((30, 30)), stage.side))
    expected = stage(**given)
    given["cells"] = given["cells"].flip(-1)
    assert relative_error(stage(**given), expected) > 1e-2


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
def test_half_precision_is_close(dtype: torch.dtype, tolerance: float) -> None:
    parts = shown((448, 448), (60, 40))
    expected = vision_stage().look(parts)
    found = deepcopy(vision_stage()).to(dtype).look(parts)
    assert found.dtype == dtype
    assert relative_error(found, expected) < tolerance


def test_packed_for_the_cpu_it_sees_the_same():
    packed = deepcopy(vision_stage())
    if not pack(packed):
        pytest.skip("this CPU's PyTorch packs no weights")
    parts = shown((60, 40))
    assert relative_error(packed.look(parts), vision_stage().look(parts)) < 1e-5


def test_no_picture_is_no_embedding():
    assert vision_stage().look([]).shape == (0, 64, 128)


def test_fifty_pictures_are_seen_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, sizes = vision_stage(), []
    parts = shown((8, 8)) + shown((8, 7)) * 49
    forward = stage.forward
    monkeypatch.setattr(
        stage, "forward", lambda *given: sizes.append(len(given[0])) or forward(*given)
    )
    found = stage.look(parts)
    assert sizes == [16, 16, 16, 2]
    assert relative_error(found[-1:], stage.look(parts[-1:])) < 1e-5
    assert relative_error(found[:1], stage.look(parts[:1])) < 1e-5


def test_a_strip_longer_than_the_position_table_is_seen():
    found = vision_stage().look(shown((8000, 10)))
    assert found.shape == (1, 64, 128) and found.isfinite().all()


def test_positions_of_patches_are_sines_of_column_then_row():
    cells = torch.tensor([[[0, 0], [3, 100]]])
    found = vision_stage().resampler.positions(cells)[0].numpy()
    angles = 10000.0 ** (-np.arange(32) / 32)
    expected = [np.sin(3 * angles), np.cos(3 * angles), np.sin(100 * angles), np.cos(100 * angles)]
    assert np.allclose(found[1], np.concatenate(expected), atol=1e-5)
    assert found[0].tolist() == ([0.0] * 32 + [1.0] * 32) * 2


def test_a_checkpoint_fills_the_stage(tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint(tiny_checkpoint)
    config = checkpoint.config
    stage = checkpoint.build(lambda: VisionStage(config.vision, config.resampler))
    parts = shown((60, 40))
    assert torch.equal(stage.look(parts), vision_stage().look(parts))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-3), (torch.float16, 1e-2), (torch.bfloat16, 4e-2)]
)
def test_on_a_gpu_it_sees_the_same(dtype: torch.dtype, tolerance: float) -> None:
    parts = shown(CAMERA, UPRIGHT)
    found = deepcopy(vision_stage()).to("cuda", dtype).look(parts)
    assert found.device.type == "cuda"
    assert relative_error(found.cpu(), vision_stage().look(parts)) < tolerance
