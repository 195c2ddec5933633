"""The network in torch: what loading says, and contexts that read, forget and answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from minicpmo_ros.errors import CheckpointError, ConfigError, InputError, KvFullError
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.packed import PackedLinear
from minicpmo_ros.model.picture import slices
from minicpmo_ros.model.tiny import write_checkpoint
from minicpmo_ros.runtime.torch_runtime import TorchNetwork

IDS = [5, 6, 7, 8, 9, 10, 11]


@pytest.fixture(scope="module")
def network(tiny_checkpoint: Path) -> TorchNetwork:
    return TorchNetwork.load(tiny_checkpoint)


def noise(samples: int = 16_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# -- loading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_progress_grows_to_one_over_all_stages(tmp_path: Path, dtype: torch.dtype):
    directory = write_checkpoint(tmp_path, dtype=dtype)
    told: list[tuple[str, float]] = []
    network = TorchNetwork.load(directory, progress=lambda *what: told.append(what))
    names = [name for name, _ in told]
    assert sorted(set(names), key=names.index) == ["audio", "vision", "speech", "llm"]
    shares = [share for _, share in told]
    assert shares == sorted(set(shares))
    assert shares[0] > 0
    assert shares[-1] == 1.0
    # In bytes: a stage's share is that of its weights.
    entries = Checkpoint(directory).entries
    before_llm = max(share for name, share in told if name != "llm")
    read = {
        key: entry.bytes for key, entry in entries.items() if not key.startswith("tts.model.em")
    }
    read = {key: size for key, size in read.items() if "projector_spk" not in key}
    rest = sum(size for key, size in read.items() if not key.startswith("llm."))
    assert before_llm == pytest.approx(rest / sum(read.values()))
    assert network.config.llm.vocab == 1024


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cuda:x", "meta", ""])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(tiny_checkpoint, device):
    with pytest.raises(ConfigError, match=rf"device '{device}': this machine has .*cpu"):
        TorchNetwork.load(tiny_checkpoint, device=device)


def test_a_precision_that_there_is_not_is_refused_with_those_that_there_are(tiny_checkpoint):
    with pytest.raises(ConfigError, match="'int3': there are auto, fp32, bf16, fp16, int4"):
        TorchNetwork.load(tiny_checkpoint, precision="int3")


def test_without_a_checkpoint_there_is_no_network(tmp_path: Path):
    with pytest.raises(CheckpointError):
        TorchNetwork.load(tmp_path)


@pytest.mark.parametrize(
    "stored, asked, found",
    [
        (torch.float32, "bf16", torch.bfloat16),
        (torch.float32, "fp16", torch.float16),
        (torch.float32, "auto", torch.float32),
        (torch.bfloat16, "auto", torch.bfloat16),
        (torch.bfloat16, "fp32", torch.float32),
    ],
)
def test_weights_and_caches_have_the_precision_asked_for(tmp_path, stored, asked, found):
    directory = write_checkpoint(tmp_path, dtype=stored)
    network = TorchNetwork.load(directory, precision=asked, packed=False)
    for stage in network.stages.values():
        assert {parameter.dtype for parameter in stage.parameters()} == {found}
    for context in (network.context(16), network.speech(16)):
        assert context.cache.k.dtype == found
        assert context.nbytes == 2 * context.cache.k.numel() * found.itemsize
    assert str(found).removeprefix("torch.") in network.about


@pytest.mark.parametrize("precision, tolerance", [("bf16", 0.03), ("fp16", 0.005)])
def test_half_precision_is_close_to_single(network, tiny_checkpoint, precision, tolerance):
    """Measured: 0.01 and 0.0013."""
    half = TorchNetwork.load(tiny_checkpoint, precision=precision)
    assert relative_error(answer(half), answer(network)) < tolerance


def answer(network: TorchNetwork) -> np.ndarray:
    """Logits behind text, a picture and a second of sound: all stages but speech."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (seen,) = network.look(slices(pixels, 1, network.config.slices))
    context = network.context(200)
    hidden = context.read(IDS, seen, network.ears().step(noise()))
    return context.logits(hidden)


def test_packed_weights_give_the_same_numbers_within_rounding(network, tiny_checkpoint):
    plain = TorchNetwork.load(tiny_checkpoint, packed=False)

    def packs(one: TorchNetwork) -> int:
        modules = (module for stage in one.stages.values() for module in stage.modules())
        return sum(isinstance(module, PackedLinear) for module in modules)

    if torch.backends.mkldnn.is_available():
        assert packs(network) > 20
    assert packs(plain) == 0
    assert relative_error(answer(network), answer(plain)) < 1e-5


def test_a_number_of_threads_is_set(tiny_checkpoint):
    before = torch.get_num_threads()
    try:
        TorchNetwork.load(tiny_checkpoint, threads=3)
        assert torch.get_num_threads() == 3
        TorchNetwork.load(tiny_checkpoint)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


# -- contexts -----------------------------------------------------------------------------------


def test_ids_and_embeddings_are_read_alike_and_in_any_parts(network):
    whole, parts, embedded = (network.context(32) for _ in range(3))
    expected = whole.read(IDS)
    table = network.stages["llm"].model.embed_tokens.weight
    hidden = [parts.read(IDS[:2]), parts.read(IDS[2:3], IDS[3:])]
    assert [len(rows) for rows in hidden] == [2, 5]
    torch.testing.assert_close(torch.cat(hidden), expected)
    torch.testing.assert_close(embedded.read(IDS[:3], table[IDS[3:]]), expected)
    for context in (whole, parts, embedded):
        assert context.length == len(IDS)
        assert relative_error(context.keys(7), whole.keys(7)) < 1e-5


def test_what_is_read_over_old_rows_sees_nothing_behind_them(network):
    context, other = network.context(32), network.context(32)
    context.read(IDS)
    hidden = context.read([20, 21], at=3)
    assert context.length == len(IDS)
    torch.testing.assert_close(hidden, other.read([*IDS[:3], 20, 21])[3:])
    np.testing.assert_allclose(context.keys(7)[:, :, :5], other.keys(5), atol=1e-5)


def test_logits_are_of_the_last_row_in_single_precision_and_the_callers(network, tiny_checkpoint):
    for one in (network, TorchNetwork.load(tiny_checkpoint, precision="bf16")):
        context = one.context(32)
        hidden = context.read(IDS)
        logits = context.logits(hidden)
        assert logits.dtype == np.float32
        assert logits.shape == (1024,)
        np.testing.assert_array_equal(logits, context.logits(hidden[-1:]))
        assert np.abs(logits - context.logits(hidden[:-1])).max() > 0.01
        before = logits.copy()
        logits[:] = -np.inf
        np.testing.assert_array_equal(context.logits(hidden), before)


def test_room_is_checked_before_anything_is_written(network):
    context = network.context(10)
    assert (context.length, context.capacity) == (0, 10)
    context.read(IDS)
    keys = context.keys(7)
    context.check_room(3)
    with pytest.raises(KvFullError):
        context.check_room(4)
    with pytest.raises(KvFullError):
        context.read(IDS[:4])
    assert context.length == 7
    np.testing.assert_array_equal(context.keys(7), keys)


def test_keys_are_those_of_the_last_rows_and_stay_as_they_were(network):
    context = network.context(32)
    context.read(IDS)
    config = network.config.llm
    keys = context.keys(3)
    assert keys.dtype == np.float32
    assert keys.shape == (config.layers, config.kv_heads, 3, config.head_dim)
    np.testing.assert_array_equal(keys, context.keys(7)[:, :, 4:])
    before = keys.copy()
    context.truncate(4)
    context.read([30, 31, 32])
    np.testing.assert_array_equal(keys, before)
    assert np.abs(context.keys(3) - before).max() > 0.01


def test_what_is_forgotten_makes_place(network):
    context = network.context(32)
    context.read(IDS)
    context.remove([(1, 3), (4, 5)])
    assert context.length == 4
    context.truncate(2)
    assert context.length == 2
    context.shift(1, 6)
    assert context.length == 7


def test_speech_has_all_the_positions_of_its_decoder(network):
    assert network.speech().capacity == network.config.speech.max_positions
    assert network.speech(64).capacity == 64
    context = network.speech(64)
    hidden = context.read([1, 2, 3])
    assert context.logits(hidden).shape == (network.config.speech.codes,)


def test_contexts_share_nothing_but_weights(network):
    one, other = network.context(16), network.context(16)
    one.read(IDS)
    assert other.length == 0
    assert not other.cache.k.any()


# -- conditions and sound -----------------------------------------------------------------------


@pytest.mark.parametrize("text_ended", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_condition_is_made_of_tokens_and_their_thoughts(network, text_ended, normalize):
    context = network.context(16)
    hidden = [context.read([token]) for token in (5, 6)]
    how = {"text_ended": text_ended, "normalize": normalize}
    found = network.condition([5, 6], hidden, **how)
    speech = network.stages["speech"]
    expected = speech.condition(torch.tensor([5, 6]), torch.cat(hidden), **how)
    torch.testing.assert_close(found, expected)
    assert len(network.condition([], [], **how)) == 1 + text_ended


def test_a_sound_by_seconds_is_the_whole_sound_in_tens(network):
    sound = noise(3 * 16_000)
    whole, seconds = network.sound(sound), network.seconds(sound)
    assert [len(second) for second in seconds] == [10, 10, 10]
    torch.testing.assert_close(torch.cat(seconds), whole)


def test_ears_hear_ten_embeddings_a_second_and_forget_on_demand(network):
    ears = network.ears(overlap_s=10)
    first, later = ears.step(noise()), ears.step(noise())
    assert len(first) == len(later) == 10
    assert not torch.equal(first, later)
    ears.reset()
    torch.testing.assert_close(ears.step(noise()), first, rtol=0, atol=0)
    ears.reset(cache=False)
    assert not torch.equal(ears.step(noise()), first)
    with pytest.raises(InputError):
        ears.step(noise(15_999))
    with pytest.raises(ConfigError, match="overlap_s is 20"):
        network.ears(overlap_s=20)


def test_a_silent_voice_is_of_no_use(network):
    assert len(network.voice(noise(32_000))) == 20
    with pytest.raises(InputError, match="silent"):
        network.voice(np.zeros(32_000, np.float32))


def test_the_reference_hears_a_long_voice_a_little_otherwise(network):
    """It lets the last piece see some of its padding."""
    voice = noise(31 * 16_000)
    found, reference = network.voice(voice), network.voice(voice, reference_compat=True)
    assert len(found) == len(reference) == 310
    torch.testing.assert_close(found[:300], reference[:300])
    assert not torch.allclose(found[300:], reference[300:])
