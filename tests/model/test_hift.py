"""The vocoder's parts: the reference's numbers, true transforms, and sines of the right pitch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.hift.fourier import Fourier, InverseFourier
from minicpmo_ros.model.hift.history import UNKNOWN, Rendered
from minicpmo_ros.model.hift.source import Source
from minicpmo_ros.model.hift.vocoder import Vocoder
from tests.model.decoders import DATA, random, relative_error
from tests.model.hift_network import SMALL, frames, noise, small_vocoder

SIZE = SMALL.samples_per_frame


def unknown(*shape: int) -> np.ndarray:
    return np.full(shape, UNKNOWN, np.float32)


def rendered(count: int, seed: int) -> Rendered:
    return small_vocoder().render(
        frames(count, seed),
        unknown(count),
        unknown(count, SIZE),
        np.zeros(SMALL.harmonics, np.float32),
        True,
        noise(0, count),
    )


@pytest.mark.parametrize("part", ["f0", "source", "samples"])
def test_pitch_source_and_samples_are_the_references(part: str) -> None:
    reference = np.load(DATA / "hift.npz")
    count = len(reference["f0"])
    assert (reference["f0"] < SMALL.voiced_hz).any() and (reference["f0"] > 100).any()
    assert relative_error(getattr(rendered(count, seed=1), part).ravel(), reference[part]) < 1e-4


def test_what_is_known_is_not_made_again() -> None:
    made = rendered(12, seed=1)
    known_f0, known_source = unknown(12), unknown(12, SIZE)
    known_f0[:5], known_source[:3] = 150.0, 0.25
    again = small_vocoder().render(
        frames(12, 1), known_f0, known_source, np.zeros(9, np.float32), True, noise(0, 12)
    )
    assert (again.f0[:5] == 150).all() and np.array_equal(again.f0[5:], made.f0[5:])
    assert (again.source[:3] == 0.25).all()
    assert not np.array_equal(again.source[3:], made.source[3:])


def test_the_transform_is_torchs_and_its_inverse_gives_the_signal_back() -> None:
    forward, inverse, signal = Fourier(16, 4), InverseFourier(16, 4), random(1, 960)
    window = torch.hann_window(16)
    expected = torch.stft(signal, 16, 4, window=window, return_complex=True)
    parts = forward(signal)
    torch.testing.assert_close(
        parts, torch.cat((expected.real, expected.imag), 1), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(inverse(parts), signal, atol=1e-6, rtol=0)


def test_the_inverse_is_torchs_where_parts_are_of_no_signal() -> None:
    parts = random(1, 18, 241, seed=1)
    spectrum = torch.complex(parts[:, :9], parts[:, 9:])
    expected = torch.istft(spectrum, 16, 4, window=torch.hann_window(16))
    torch.testing.assert_close(InverseFourier(16, 4)(parts), expected, atol=1e-5, rtol=0)


def one_sine(harmonic: int) -> Source:
    """A source that lets one harmonic through, a tenth as loud, so that tanh changes nothing."""
    source = Source(SMALL)
    source.l_linear.weight.data.zero_()[0, harmonic] = 0.1
    source.l_linear.bias.data.zero_()
    return source.requires_grad_(False)


@pytest.mark.parametrize("harmonic", [0, 8])
def test_a_steady_pitch_is_a_sine_of_its_multiple(harmonic: int) -> None:
    f0, nothing = torch.full((20,), 150.0), torch.zeros(20, SIZE, 9)
    found, _ = one_sine(harmonic)(f0, torch.zeros(9), torch.tensor([False]), nothing)
    middle = torch.arange(20 * SIZE, dtype=torch.float64) + 0.5 + SIZE / 2
    hz = 150 * (harmonic + 1)
    expected = 0.01 * torch.sin(2 * np.pi * hz * middle / SMALL.rate_hz)
    found = found.flatten()
    assert float((found - expected)[: -SIZE // 2].abs().max()) < 2e-6
    assert (found[-SIZE // 2 :] == found[-1]).all()


def test_a_source_in_two_parts_is_the_whole_one_up_to_where_the_parts_meet() -> None:
    """The first part stands still from the middle of its last frame: it knows nothing to go to."""
    source, f0, nothing = one_sine(3), 60 + 400 * random(30).abs(), torch.zeros(30, SIZE, 9)
    whole, cycles = source(f0, torch.zeros(9), torch.tensor([True]), nothing)
    first, before = source(f0[:11], torch.zeros(9), torch.tensor([True]), nothing[:11])
    second, after = source(f0[11:], before[-1], torch.tensor([False]), nothing[:19])
    middle = 11 * SIZE - SIZE // 2
    until = first.flatten()[:middle], whole.flatten()[:middle]
    torch.testing.assert_close(*until, atol=1e-6, rtol=0)
    torch.testing.assert_close(second, whole[11:], atol=1e-6, rtol=0)
    apart = (torch.cat((before, after)) - cycles + 0.5).remainder(1) - 0.5
    assert float(apart.abs().max()) < 1e-4


def test_unvoiced_frames_are_noise_alone_and_ten_times_as_loud() -> None:
    source = one_sine(0)
    given = random(4, SIZE, 9)
    f0 = torch.tensor([0.0, 9.9, 10.1, 200.0])
    found, _ = source(f0, torch.zeros(9), torch.tensor([True]), given)
    torch.testing.assert_close(found[:2], given[:2, :, 0] * 0.01 / 3, atol=1e-6, rtol=0)
    still, _ = source(f0, torch.zeros(9), torch.tensor([True]), torch.zeros(4, SIZE, 9))
    torch.testing.assert_close((found - still)[2:], given[2:, :, 0] * 3e-4, atol=1e-6, rtol=0)


def test_sizes_are_read_from_the_weights() -> None:
    config = HiftConfig(mels=12, channels=16, f0_channels=7, harmonics=5)
    state = Vocoder(config).state_dict()
    shapes = {name.removeprefix("generator."): tuple(x.shape) for name, x in state.items()}
    assert HiftConfig.from_shapes(shapes) == config
    with pytest.raises(CheckpointError, match=r"12 channels, which 3 stages cannot halve"):
        HiftConfig.from_shapes(shapes | {"conv_pre.weight": (12, 80, 7)})
    with pytest.raises(CheckpointError, match=r"l_linear\.weight is \[9\], not of 2 dimensions"):
        HiftConfig.from_shapes(shapes | {"m_source.l_linear.weight": (9,)})


def test_as_published_it_has_the_parameters_of_the_published_file() -> None:
    """hift.pt is 80 MB of float32, and its gains are a few thousand more."""
    with torch.device("meta"):
        vocoder = Vocoder(HiftConfig())
    parameters = sum(parameter.numel() for parameter in vocoder.parameters())
    assert vocoder.config.samples_per_frame == 480
    assert 79e6 < 4 * parameters < 86e6
