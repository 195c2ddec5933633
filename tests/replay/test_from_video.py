"""Video and sound files become bags: every picture and sample at its time."""

from __future__ import annotations

import itertools
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from minicpmo_ros import topics as t
from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.messages import MIC_RATE_HZ, NS_PER_S, AudioChunk, Picture
from minicpmo_ros.replay import from_video
from minicpmo_ros.replay.bag import open_bag
from minicpmo_ros.replay.from_video import START_NS, MediaSummary


def bag_from_media(path: Path, out: Path, tail_s: float = 0.0, **options: float) -> MediaSummary:
    """Without the silence that follows by default."""
    return from_video.bag_from_media(path, out, tail_s=tail_s, **options)  # type: ignore[arg-type]


def tone(seconds: float, rate_hz: int, hz: float = 440.0) -> np.ndarray:
    """float32 [frames], silent but for a burst from 0.5 s to 0.7 s."""
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * hz * at) * ((at >= 0.5) & (at < 0.7))).astype(np.float32)


def film(
    path: Path, frames: int = 30, fps: int = 30, sound_s: float = 0.0, sound_from_s: float = 0.0
) -> Path:
    """A film whose pictures are grey, each a shade lighter, with a burst of sound."""
    av = pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    with av.open(str(path), "w") as out:
        video = out.add_stream("mjpeg", rate=fps)
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p"
        audio = out.add_stream("pcm_s16le", rate=48_000, layout="mono") if sound_s else None
        for i in range(frames):
            rgb = np.full((48, 64, 3), 10 + 4 * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            data = (tone(sound_s, 48_000) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
            frame.pts = round(sound_from_s * 48_000)
            out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    return path


def sound_of(bag: Path) -> tuple[int, np.ndarray]:
    """Stamp of the first sample and all samples; chunks must follow one another without a gap."""
    with open_bag(bag) as opened:
        chunks = [c for _, _, c in opened.messages([t.MIC]) if isinstance(c, AudioChunk)]
    for one, next_one in itertools.pairwise(chunks):
        assert next_one.stamp_ns == one.end_ns
        assert next_one.sequence == one.sequence + 1
    return chunks[0].stamp_ns, np.concatenate([c.data for c in chunks])


def burst_s(samples: np.ndarray) -> tuple[float, float]:
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 1000)
    return loud[0] / MIC_RATE_HZ, loud[-1] / MIC_RATE_HZ


def pictures_of(bag: Path) -> list[Picture]:
    with open_bag(bag) as opened:
        return [p for _, _, p in opened.messages([t.IMAGE_COMPRESSED]) if isinstance(p, Picture)]


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_keeps_its_time_at_any_rate(tmp_path: Path, rate_hz: int, channels: int) -> None:
    data = np.repeat(tone(1.25, rate_hz)[:, None], channels, axis=1)
    soundfile.write(tmp_path / "a.wav", data, rate_hz)
    made = bag_from_media(tmp_path / "a.wav", tmp_path / "bag")
    first_ns, samples = sound_of(made.bag)
    assert first_ns == START_NS
    assert len(samples) == 1.3 * MIC_RATE_HZ  # filled up to a whole chunk
    assert burst_s(samples) == pytest.approx((0.5, 0.7), abs=0.001)
    assert 15_000 < np.abs(samples.astype(int)).max() < 17_500
    assert made == MediaSummary(tmp_path / "bag", 0, 1.3, ("no pictures in the file",))


@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3"])
def test_other_sound_files_are_read(tmp_path: Path, kind: str) -> None:
    soundfile.write(tmp_path / f"a.{kind}", tone(1.0, 32_000), 32_000)
    _, samples = sound_of(bag_from_media(tmp_path / f"a.{kind}", tmp_path / "bag").bag)
    assert burst_s(samples) == pytest.approx((0.5, 0.7), abs=0.02)  # lossy ones smear a little


def test_a_chunk_is_recorded_when_its_last_sample_is_in(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0, 16_000), 16_000)
    with open_bag(bag_from_media(tmp_path / "a.wav", tmp_path / "bag").bag) as bag:
        times = [log_ns - START_NS for _, log_ns, _ in bag.messages()]
    assert times == [(i + 1) * NS_PER_S // 10 for i in range(10)]


def test_silence_follows_so_that_the_last_words_have_an_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0, 16_000), 16_000)
    made = from_video.bag_from_media(tmp_path / "a.wav", tmp_path / "bag")
    _, samples = sound_of(made.bag)
    assert made.sound_s == 1.0
    assert len(samples) == 3 * MIC_RATE_HZ
    assert not samples[MIC_RATE_HZ:].any()


def test_not_a_number_in_a_sound_file_is_silence(tmp_path: Path) -> None:
    data = np.array([0.5, np.nan, np.inf, -np.inf, 2.0] * 320, np.float32)
    soundfile.write(tmp_path / "a.wav", data, 16_000, subtype="FLOAT")
    _, samples = sound_of(bag_from_media(tmp_path / "a.wav", tmp_path / "bag").bag)
    assert samples[:5].tolist() == [16384, 0, 32767, -32768, 32767]


def test_pictures_are_taken_at_the_rate_and_stamped_with_their_time(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", frames=30, fps=30)
    made = bag_from_media(path, tmp_path / "bag", rate_hz=10)
    pictures = pictures_of(made.bag)
    stamps_ms = [round((p.stamp_ns - START_NS) / 1e6) for p in pictures]
    assert stamps_ms == [100 * i for i in range(10)]
    shades = [float(p.rgb().mean()) for p in pictures]
    assert shades == pytest.approx([10 + 12 * i for i in range(10)], abs=3)
    assert made.notes == ("no sound in the file",)


@pytest.mark.parametrize(("fps", "rate_hz", "wanted"), [(5, 10, 10), (25, 10, 20), (30, 4, 8)])
def test_any_film_rate_gives_the_wanted_one_or_its_own(
    tmp_path: Path, fps: int, rate_hz: float, wanted: int
) -> None:
    path = film(tmp_path / "a.mkv", frames=2 * fps, fps=fps)
    assert bag_from_media(path, tmp_path / "bag", rate_hz=rate_hz).pictures == wanted


def test_picture_and_sound_keep_their_distance(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", sound_s=1.0, sound_from_s=0.25)
    made = bag_from_media(path, tmp_path / "bag")
    first_ns, samples = sound_of(made.bag)
    assert first_ns == pytest.approx(START_NS + NS_PER_S // 4, abs=2_000_000)
    assert burst_s(samples) == pytest.approx((0.5, 0.7), abs=0.002)
    assert made.notes == ()


def test_pictures_are_scaled_down_in_their_shape(tmp_path: Path) -> None:
    made = bag_from_media(film(tmp_path / "a.mkv"), tmp_path / "bag", max_side=32)
    assert pictures_of(made.bag)[0].rgb().shape == (24, 32, 3)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", sound_s=1.0)
    one, two = (bag_from_media(path, tmp_path / name).bag for name in ("one", "two"))
    assert (one / "data.mcap").read_bytes() == (two / "data.mcap").read_bytes()


def test_a_film_with_a_broken_middle_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", frames=60)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 3000] = bytes(3000)
    path.write_bytes(data)
    assert 5 <= bag_from_media(path, tmp_path / "bag").pictures < 20


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def write_text(path: Path) -> None:
    path.write_text("This is a shopping list: milk, bread, a camera.\n" * 50)


def write_no_frames(path: Path) -> None:
    soundfile.write(path, np.zeros(0, np.float32), 16_000)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("absent.mp4", None, "does not exist"),
        ("a.mp4", write_nothing, "is empty"),
        ("a.wav", write_nothing, "is empty"),
        ("a.wav", write_text, "cannot be read as a sound file"),
        ("a.wav", write_no_frames, "holds no sound"),
        ("folder", Path.mkdir, "is no file"),
    ],
)
def test_what_is_no_media_file_is_refused(
    tmp_path: Path, name: str, write: object, words: str
) -> None:
    if callable(write):
        write(tmp_path / name)
    with pytest.raises(InputError, match=words):
        bag_from_media(tmp_path / name, tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


def test_a_text_file_is_no_film(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    write_text(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"a\.mp4 is no video or sound file"):
        bag_from_media(tmp_path / "a.mp4", tmp_path / "bag")


def test_without_pyav_a_film_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"some film")
    with pytest.raises(InputError, match=r"pip install 'minicpmo_ros\[video\]'"):
        bag_from_media(tmp_path / "a.mp4", tmp_path / "bag")


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, float("nan"), 1e9])
def test_an_absurd_rate_is_refused(tmp_path: Path, rate_hz: float) -> None:
    with pytest.raises(ConfigError, match="rate_hz is"):
        bag_from_media(tmp_path / "a.mp4", tmp_path / "bag", rate_hz=rate_hz)
