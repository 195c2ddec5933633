"""The audio encoder and its projection: streamed as whole, in every precision, and as ONNX."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.audio_stream import AudioCache, block_mask, embed_sound
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.mel import log_mel
from tests.model.audio_stage import REFERENCE, audio_stage, relative_error, wave


def windows_of(mel: np.ndarray) -> list[torch.Tensor]:
    """The windows of a whole spectrogram, for each second that has two frames after it."""
    padded = np.pad(mel, ((0, 0), (2, 0)))
    count = (padded.shape[1] - 4) // 100
    return [torch.from_numpy(padded[:, 100 * k : 100 * k + 104].copy()) for k in range(count)]


def streamed(stage: Audio, windows: list[torch.Tensor]) -> torch.Tensor:
    """Embeddings of windows in a row, [10 n, llm_hidden], by a cache that is always read whole."""
    weight = stage.apm.conv1.weight
    cache = AudioCache.empty(stage.config, weight.dtype, weight.device)
    found = []
    for k, window in enumerate(windows):
        positions = torch.arange(50 * k, 50 * k + 50)
        embeddings, own_k, own_v = stage(window, torch.tensor(k == 0), positions, cache.k, cache.v)
        cache.k[:, :, positions], cache.v[:, :, positions] = own_k, own_v
        found.append(embeddings)
    return torch.cat(found)


@pytest.mark.parametrize(("blocks", "name"), [(True, "ref_blocks"), (False, "ref_full")])
def test_a_whole_sound_is_embedded_as_by_the_reference(blocks, name):
    found = embed_sound(audio_stage(), wave(6.4, seed=11), blocks=blocks)
    assert relative_error(found, REFERENCE[name]) < 1e-5


def test_a_checkpoint_fills_the_stage(tiny_checkpoint):
    opened = Checkpoint(tiny_checkpoint)
    stage = opened.build(lambda: Audio(opened.config.audio))
    expected = audio_stage().state_dict()
    assert stage.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in stage.state_dict().items())


@pytest.mark.parametrize("size", ["tiny", "wide"])
def test_streamed_equals_whole_with_blocks_of_a_second(size):
    stage = audio_stage(size, seed=3)
    mel = log_mel(wave(29.02, seed=5), floor=-10.0)
    positions = (mel.shape[1] + 1) // 2
    whole = stage.whole(torch.from_numpy(mel)[None], block_mask(positions, 50))[0, :290]
    assert relative_error(streamed(stage, windows_of(mel)), whole) < 1e-5


@pytest.mark.parametrize(
    "changed", [{"mels": 128}, {"max_positions": 320}, {"heads": 2}, {"pool": 10}, {"layers": 1}]
)
def test_no_size_is_taken_for_granted(changed):
    stage = audio_stage(**changed)
    mel = log_mel(wave(3.02, seed=5), stage.config.mels, floor=-10.0)
    whole = stage.whole(torch.from_numpy(mel)[None], block_mask((mel.shape[1] + 1) // 2, 50))[0]
    found = streamed(stage, windows_of(mel))
    assert len(found) == 150 // stage.config.pool
    assert relative_error(found, whole[: len(found)]) < 1e-5


def test_what_lies_in_the_cache_behind_the_second_is_not_seen():
    stage = audio_stage()
    window, opening = torch.randn(80, 104), torch.tensor(False)
    positions = torch.arange(100, 150)
    k, v = torch.randn(2, 2, 4, 1450, 16)
    exact = stage(window, opening, positions, k[:, :, :100], v[:, :, :100])
    for cache in (k, v):
        cache[:, :, 100:] = 1e4
    for found, expected in zip(stage(window, opening, positions, k, v), exact, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_the_past_matters():
    stage = audio_stage()
    window, opening = torch.randn(80, 104), torch.tensor(False)
    k, v = torch.randn(2, 2, 4, 50, 16)
    one, _, _ = stage(window, opening, torch.arange(50, 100), k, v)
    other, _, _ = stage(window, opening, torch.arange(50, 100), k, -v)
    assert relative_error(one, other) > 1e-2


def test_the_mean_before_the_last_linear_layer_is_the_mean_after_it():
    projection = audio_stage().audio_projection_layer
    x = torch.randn(1, 53, 64)
    after = projection.linear2(projection.linear1(x).relu())
    expected = torch.nn.functional.avg_pool1d(after.mT, 5).mT
    assert relative_error(projection(x), expected) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])
def test_half_precision_is_close(dtype, tolerance):
    windows = windows_of(log_mel(wave(6.02, seed=5), floor=-10.0))
    full, half = audio_stage(), audio_stage().to(dtype)
    found = streamed(half, windows)
    assert found.dtype == dtype
    assert relative_error(found.float(), streamed(full, windows)) < tolerance


def test_half_precision_stays_finite_where_whisper_leaves_its_range():
    stage = audio_stage().to(torch.float16)
    stage.apm.layers[0].fc2.bias.fill_(60_000.0)
    stage.apm.layers[1].fc2.bias.fill_(60_000.0)
    x, _ = stage.apm.layers[0](torch.full((1, 50, 64), 60_000.0, dtype=torch.float16), None)
    assert torch.isfinite(x).all()


def test_the_stage_as_onnx_computes_the_same():
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    stage = audio_stage()
    cache = AudioCache.empty(stage.config, torch.float32, "cpu")
    names = ("mel", "opening", "positions", "k", "v")

    def inputs(second: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(second)
        mel = torch.randn(80, 104, generator=generator)
        for part in (cache.k, cache.v):
            part.normal_(generator=generator)
        positions = torch.arange(50 * second, 50 * second + 50)
        return mel, torch.tensor(second == 0), positions, cache.k, cache.v

    program = torch.onnx.export(stage, inputs(1), input_names=names, dynamo=True, verbose=False)
    assert program is not None
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    for second in (0, 1, 28):
        fed = inputs(second)
        found = session.run(None, {n: x.numpy() for n, x in zip(names, fed, strict=True)})
        for part, expected in zip(found, stage(*fed), strict=True):
            assert relative_error(part, expected) < 1e-5
