"""Video files, folders of pictures and the drawn scene stand in for a camera, at its pace."""

import threading
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.media.camera import CameraConfig, make_camera
from minicpmo_ros.media.camera_paced import (
    FileCamera,
    FolderCamera,
    SyntheticCamera,
    natural_order,
)
from minicpmo_ros.media.pacing import Pacing
from minicpmo_ros.media.synthetic_scene import BALL_RGB, SyntheticScene

NS = 1_000_000_000
START_NS = 1_763_000_000 * NS + 7


class FakeClock:
    """ROS time that passes only while somebody sleeps."""

    def __init__(self, now_ns: int = START_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * NS)


def opened(kind, source: str, clock: FakeClock, **options):
    camera = kind(CameraConfig(source=source, **options), clock, clock.sleep)
    camera.open()
    return camera


def video(path: Path, levels: list[int], fps: float = 30.0, size=(64, 48)) -> Path:
    """A lossless-enough video whose frame i is evenly grey at levels[i]."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    assert writer.isOpened()
    for level in levels:
        writer.write(np.full((size[1], size[0], 3), level, np.uint8))
    writer.release()
    return path


def level(picture) -> int:
    return round(float(picture.rgb().mean()))


# --- pacing


@given(
    frame_rate=st.sampled_from([1.0, 15.0, 24000 / 1001, 25.0, 29.97, 30.0, 60.0]),
    rate=st.floats(0.5, 70.0),
    count=st.integers(1, 40),
)
def test_a_punctual_reader_gets_frames_at_the_wanted_rate_with_exact_stamps(
    frame_rate, rate, count
):
    clock = FakeClock()
    pacing = Pacing(frame_rate, rate, clock, clock.sleep)
    ticks = [pacing.next(10.0) for _ in range(count)]
    frames = [tick.frame for tick in ticks]
    assert frames[0] == 0 and len(set(frames)) == count and frames == sorted(frames)
    assert sum(tick.late for tick in ticks) == 0
    exact = Fraction(frame_rate).limit_denominator(1001)
    for tick in ticks:
        assert tick.stamp_ns - START_NS == int(tick.frame * NS / exact)
        assert tick.stamp_ns <= clock.now_ns
    # Never more than asked for: count frames span at least count - 2 periods.
    assert (frames[-1] / frame_rate) * min(rate, frame_rate) >= count - 2


def test_a_rate_that_divides_takes_every_third_frame():
    clock = FakeClock()
    pacing = Pacing(30.0, 10.0, clock, clock.sleep)
    assert [pacing.next(1.0).frame for _ in range(5)] == [0, 3, 6, 9, 12]


def test_a_late_reader_gets_the_newest_frame_and_a_count():
    clock = FakeClock()
    pacing = Pacing(10.0, 10.0, clock, clock.sleep)
    pacing.next(1.0)
    clock.now_ns += 550_000_000
    tick = pacing.next(1.0)
    assert (tick.frame, tick.late) == (5, 4)
    assert tick.stamp_ns == START_NS + 500_000_000


@pytest.mark.parametrize("jump_s", [-3600, -3, 3, 3600])
def test_after_a_clock_jump_the_recording_goes_on_from_now(jump_s):
    clock = FakeClock()
    pacing = Pacing(10.0, 10.0, clock, clock.sleep)
    for _ in range(4):
        pacing.next(1.0)
    clock.now_ns += jump_s * NS
    tick = pacing.next(1.0)
    assert (tick.frame, tick.late) == (4, 0)
    assert tick.stamp_ns == clock.now_ns


def test_nothing_due_within_the_timeout_gives_none_and_waits_that_long():
    clock = FakeClock()
    pacing = Pacing(1.0, 1.0, clock, clock.sleep)
    pacing.next(1.0)
    before = clock.now_ns
    assert pacing.next(0.25) is None
    assert clock.now_ns - before == 250_000_000


def test_under_a_standing_clock_a_wait_still_ends():
    slept = []
    pacing = Pacing(1.0, 1.0, lambda: 5, slept.append)
    pacing.next(1.0)
    assert pacing.next(0.5) is None
    assert sum(slept) == pytest.approx(0.5)


# --- video files


def test_a_video_is_stamped_by_frame_and_its_pictures_are_the_right_ones(tmp_path):
    levels = [10 + 8 * i for i in range(20)]
    path = video(tmp_path / "a.avi", levels)
    clock = FakeClock()
    camera = opened(FileCamera, f"file:{path}", clock, rate_hz=10.0, frame_id="eye")
    pictures = [camera.read(1.0) for _ in range(7)]
    assert [round((p.stamp_ns - START_NS) / 1e6) for p in pictures] == [100 * i for i in range(7)]
    assert [level(p) for p in pictures] == pytest.approx(levels[::3], abs=2)
    assert pictures[0].frame_id == "eye"
    assert camera.status.pictures == 7 and camera.status.dropped == 0
    assert (camera.status.width, camera.status.height) == (64, 48)


def test_a_video_that_loops_starts_again_without_a_gap(tmp_path):
    path = video(tmp_path / "a.avi", [20, 120, 220], fps=10.0)
    clock = FakeClock()
    camera = opened(FileCamera, f"file:{path}", clock)
    pictures = [camera.read(1.0) for _ in range(8)]
    assert [level(p) for p in pictures] == pytest.approx([20, 120, 220] * 2 + [20, 120], abs=2)
    assert {b.stamp_ns - a.stamp_ns for a, b in pairwise(pictures)} == {100_000_000}


def test_a_video_that_does_not_loop_ends_and_says_so(tmp_path):
    path = video(tmp_path / "a.avi", [20, 120, 220], fps=10.0)
    clock = FakeClock()
    camera = opened(FileCamera, f"file:{path}", clock, loop=False)
    assert [camera.read(1.0) is None for _ in range(5)] == [False] * 3 + [True] * 2
    assert camera.status.finished and not camera.status.working
    assert "at its end after 3 frames" in camera.status.detail


def test_a_slow_reader_of_a_video_skips_frames(tmp_path):
    levels = [10 + 10 * i for i in range(20)]
    path = video(tmp_path / "a.avi", levels, fps=10.0)
    clock = FakeClock()
    camera = opened(FileCamera, f"file:{path}", clock)
    camera.read(1.0)
    clock.sleep(0.95)
    assert level(camera.read(1.0)) == pytest.approx(levels[9], abs=2)
    assert camera.status.dropped == 8


def test_a_video_is_scaled_into_the_box_in_its_shape(tmp_path):
    path = video(tmp_path / "a.avi", [99] * 3, size=(320, 160))
    camera = opened(FileCamera, f"file:{path}", FakeClock(), width=160, height=160)
    assert camera.read(1.0).rgb().shape == (80, 160, 3)


def test_red_stays_red_through_a_video(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "r.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.full((48, 64, 3), (20, 40, 230), np.uint8))
    writer.release()
    camera = opened(FileCamera, f"file:{tmp_path / 'r.avi'}", FakeClock())
    assert np.abs(camera.read(1.0).rgb().mean(axis=(0, 1)) - [230, 40, 20]).max() < 6


def test_a_closed_camera_can_be_opened_again_from_the_start(tmp_path):
    path = video(tmp_path / "a.avi", [20, 120, 220], fps=10.0)
    clock = FakeClock()
    camera = opened(FileCamera, f"file:{path}", clock)
    camera.read(1.0)
    camera.read(1.0)
    camera.close()
    assert camera.read(0.1) is None and not camera.status.working
    camera.open()
    assert level(camera.read(1.0)) == pytest.approx(20, abs=2)


def test_closing_ends_a_read_in_another_thread(tmp_path):
    path = video(tmp_path / "a.avi", [20, 120], fps=0.5)
    camera = make_camera(CameraConfig(source=f"file:{path}"), lambda: START_NS)
    camera.open()
    assert camera.read(1.0) is not None
    results = []
    reader = threading.Thread(target=lambda: results.append(camera.read(60.0)))
    reader.start()
    camera.close()
    reader.join(timeout=10.0)
    assert results == [None]


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "does not exist"),
        (b"", "no video stream|no picture"),
        (b"RIFF" + bytes(3000), "no video stream|no picture"),
    ],
)
def test_what_is_no_video_is_refused_at_open_by_name(tmp_path, content, said):
    path = tmp_path / "broken.mp4"
    if content is not None:
        path.write_bytes(content)
    camera = FileCamera(CameraConfig(source=f"file:{path}"), FakeClock())
    with pytest.raises(InputError, match=rf"broken.mp4 .*({said})"):
        camera.open()


# --- folders


def folder(path: Path, names: list[str]) -> Path:
    """PNG files, the i-th evenly grey at 10 * (i + 1)."""
    for i, name in enumerate(names):
        cv2.imwrite(str(path / name), np.full((48, 64, 3), 10 * (i + 1), np.uint8))
    return path


def test_a_folder_is_shown_in_the_order_of_its_numbers(tmp_path):
    folder(tmp_path, ["shot9.png", "shot10.png", "Shot100.png"])
    (tmp_path / "notes.txt").write_text("not a picture, and not meant to be")
    camera = opened(FolderCamera, f"folder:{tmp_path}", FakeClock(), rate_hz=2.0)
    pictures = [camera.read(1.0) for _ in range(4)]
    assert [level(p) for p in pictures] == [10, 20, 30, 10]
    assert [p.stamp_ns - START_NS for p in pictures] == [i * NS // 2 for i in range(4)]
    assert camera.status.unreadable == 0


def test_unreadable_files_are_skipped_counted_once_and_named(tmp_path):
    folder(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.png").write_bytes(b"")
    camera = opened(FolderCamera, f"folder:{tmp_path}", FakeClock())
    assert [level(camera.read(1.0)) for _ in range(5)] == [10, 40, 10, 40, 10]
    assert camera.status.unreadable == 2
    assert "c.png" in camera.status.detail


def test_a_folder_that_does_not_loop_ends(tmp_path):
    folder(tmp_path, ["a.png", "b.png"])
    (tmp_path / "b.png").write_bytes(b"?")
    camera = opened(FolderCamera, f"folder:{tmp_path}", FakeClock(), loop=False)
    assert camera.read(1.0) is not None
    assert camera.read(1.0) is None
    assert camera.status.finished and camera.status.unreadable == 1


def test_a_folder_emptied_under_the_camera_ends_it(tmp_path):
    folder(tmp_path, ["a.png", "b.png"])
    camera = opened(FolderCamera, f"folder:{tmp_path}", FakeClock())
    for path in tmp_path.iterdir():
        path.unlink()
    assert camera.read(1.0) is None
    assert camera.status.finished and "any more" in camera.status.detail


@pytest.mark.parametrize(
    "names, said",
    [([], "holds no picture"), (["a.png", "b.jpg"], "none of the 2 pictures .* a.png|b.jpg")],
)
def test_a_folder_without_pictures_is_refused_at_open(tmp_path, names, said):
    for name in names:
        (tmp_path / name).write_bytes(b"junk")
    camera = FolderCamera(CameraConfig(source=f"folder:{tmp_path}"), FakeClock())
    with pytest.raises(InputError, match=said):
        camera.open()


def test_a_missing_folder_is_named():
    with pytest.raises(InputError, match="/nowhere/at/all does not exist"):
        FolderCamera(CameraConfig(source="folder:/nowhere/at/all"), FakeClock()).open()


@given(st.lists(st.integers(0, 5000), unique=True))
def test_natural_order_is_the_order_of_the_numbers(numbers):
    paths = [Path(f"frame{n}.png") for n in numbers]
    assert sorted(paths, key=natural_order) == [Path(f"frame{n}.png") for n in sorted(numbers)]


# --- the drawn scene


@given(stamp_ns=st.integers(0, 2**62))
def test_the_scene_is_a_function_of_its_stamp(stamp_ns):
    first, second = SyntheticScene(96, 64), SyntheticScene(96, 64)
    first.render(stamp_ns ^ 12345)
    assert np.array_equal(first.render(stamp_ns), second.render(stamp_ns))


@given(stamp_ns=st.integers(0, 2**62))
def test_the_ball_is_where_it_is_said_to_be(stamp_ns):
    scene = SyntheticScene()
    x, y = scene.ball_centre(stamp_ns)
    assert tuple(scene.render(stamp_ns)[round(y), round(x)]) == BALL_RGB


def test_the_scene_moves_and_its_clock_ticks():
    scene = SyntheticScene()
    one, two = scene.render(START_NS), scene.render(START_NS + 100_000_000)
    changed = np.any(one != two, axis=2)
    assert changed[:48, :220].any()
    assert changed[48:].any()
    assert changed.mean() < 0.2


def test_synthetic_stamps_lie_on_whole_periods_so_that_cameras_agree():
    stamps = []
    for offset in (0, 33_333_333):
        clock = FakeClock(START_NS + offset)
        camera = opened(SyntheticCamera, "synthetic", clock, rate_hz=10.0, width=96, height=64)
        stamps.append({camera.read(1.0).stamp_ns for _ in range(5)})
    assert len(stamps[0] & stamps[1]) >= 4
    assert all(stamp % 100_000_000 == 0 for stamp in stamps[0])


def test_a_synthetic_picture_shows_its_own_stamp():
    clock = FakeClock()
    camera = opened(SyntheticCamera, "synthetic", clock, width=96, height=64)
    picture = camera.read(1.0)
    assert np.array_equal(picture.rgb(), SyntheticScene(96, 64).render(picture.stamp_ns))


def test_a_scene_too_small_to_draw_is_refused():
    with pytest.raises(ConfigError, match="at least 64x48"):
        opened(SyntheticCamera, "synthetic", FakeClock(), width=32, height=32)


# --- settings


@pytest.mark.parametrize(
    "source, kind",
    [("file:a.mp4", "FileCamera"), ("folder:a", "FolderCamera"), ("synthetic", "SyntheticCamera"),
     ("v4l2:0", "V4l2Camera")],
)  # fmt: skip
def test_the_source_names_the_camera(source, kind):
    assert type(make_camera(CameraConfig(source=source), FakeClock())).__name__ == kind


@pytest.mark.parametrize(
    "source, target",
    [("v4l2:2", "/dev/video2"), ("v4l2:/dev/v4l/by-id/x", "/dev/v4l/by-id/x"),
     ("file:a:b.mp4", "a:b.mp4"), ("file:~/a.mp4", str(Path.home() / "a.mp4")), ("synthetic", "")],
)  # fmt: skip
def test_the_target_is_what_follows_the_colon(source, target):
    assert CameraConfig(source=source).target == target


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"source": "webcam"}, "source 'webcam' is unknown: it would be v4l2:/dev/video0"),
        ({"source": ""}, "source '' is unknown"),
        ({"source": "file:"}, "'file:' names no device or path"),
        ({"source": "v4l2"}, "'v4l2' names no device"),
        ({"source": "synthetic:7"}, "takes no path"),
        ({"width": 0}, "0x480"),
        ({"width": 100_000, "height": 100_000}, "at most"),
        ({"rate_hz": 0.0}, "rate_hz is 0.0: it would be 0.01 to 1000"),
        ({"rate_hz": float("nan")}, "rate_hz is nan"),
        ({"fourcc": "MJPEG"}, "'MJPEG': it would be four letters"),
    ],
)
def test_a_bad_setting_is_named_with_what_would_be_right(fields, said):
    with pytest.raises(ConfigError, match=said):
        CameraConfig(**fields)
