"""sensor_msgs/Image in every encoding becomes RGB; what cannot be a picture is refused by name."""

import array
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import DeviceError, InputError
from minicpmo_ros.media.encodings import ENCODINGS
from minicpmo_ros.media.image import picture_from_raw, raw_to_rgb, resize_to_fit
from minicpmo_ros.media.opencv import opencv

HEIGHT, WIDTH = 16, 24


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decode(pixels: np.ndarray, encoding: str, big_endian: bool = False, **options) -> np.ndarray:
    """Decodes rows without padding."""
    height, width = pixels.shape[:2]
    data = pixels.tobytes()
    return raw_to_rgb(width, height, encoding, len(data) // height, big_endian, data, **options)


def smooth() -> np.ndarray:
    """RGB without fine detail, so that sharing colours between neighbours changes little."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([60 + 4 * x, 200 - 5 * y, 90 + 2 * x + 2 * y], axis=2).astype(np.uint8)


def to_yuv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """BT.601 studio range from its defining equations, float."""
    r, g, b = (rgb[:, :, i] / 255.0 for i in range(3))
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    return (
        16 + 219 * luma,
        128 + 224 * (b - luma) / (2 * (1 - 0.114)),
        128 + 224 * (r - luma) / (2 * (1 - 0.299)),
    )


@pytest.mark.parametrize("order", ["rgb", "bgr", "rgba", "bgra"])
@pytest.mark.parametrize("bits", [8, 16])
def test_colour_orders_are_honoured(order, bits):
    samples = noise(HEIGHT, WIDTH, len(order))
    expected = np.stack([samples[:, :, order.index(c)] for c in "rgb"], axis=2)
    if bits == 16:
        samples = samples.astype("<u2") << 8 | 0x7F
    assert np.array_equal(decode(samples, f"{order}{bits}"), expected)


@pytest.mark.parametrize("encoding, order", [("8UC3", "bgr"), ("8UC4", "bgra"), ("16UC3", "bgr")])
def test_opencv_types_are_blue_first(encoding, order):
    samples = noise(HEIGHT, WIDTH, len(order))
    expected = samples[:, :, 2::-1]
    if encoding.startswith("16"):
        samples = samples.astype("<u2") << 8
    assert np.array_equal(decode(samples, encoding), expected)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "8U"])
def test_grey_is_repeated(encoding):
    grey = noise(HEIGHT, WIDTH)
    assert np.array_equal(decode(grey, encoding), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("big_endian", [False, True])
def test_mono16_keeps_its_upper_byte_in_both_byte_orders(big_endian):
    grey = noise(HEIGHT, WIDTH)
    deep = (grey.astype(np.uint16) << 8 | 3).astype(">u2" if big_endian else "<u2")
    expected = np.stack([grey] * 3, axis=2)
    assert np.array_equal(decode(deep, "mono16", big_endian), expected)


@given(
    encoding=st.sampled_from(["rgb8", "bgr8", "mono8", "rgba8", "mono16", "uyvy", "32FC1"]),
    padding=st.integers(0, 9),
)
def test_padding_behind_each_row_changes_nothing(encoding, padding):
    row_bytes = WIDTH * ENCODINGS[encoding].bytes_per_pixel
    rows = noise(HEIGHT, row_bytes, seed=padding)
    padded = np.hstack([rows, np.full((HEIGHT, padding), 0xAB, np.uint8)])
    plain = raw_to_rgb(WIDTH, HEIGHT, encoding, row_bytes, 0, rows.tobytes())
    step = row_bytes + padding
    assert np.array_equal(raw_to_rgb(WIDTH, HEIGHT, encoding, step, 0, padded.tobytes()), plain)


@settings(max_examples=30)
@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 9))
def test_any_size_of_bgr8_is_reversed(width, height, seed):
    pixels = noise(height, width, 3, seed=seed)
    assert np.array_equal(decode(pixels, "bgr8"), pixels[:, :, ::-1])


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_packed_yuv_gives_the_colours_back(encoding):
    rgb = smooth()
    y, u, v = to_yuv(rgb)
    packed = np.zeros((HEIGHT, WIDTH, 2))
    luma, chroma = (1, 0) if ENCODINGS[encoding].order == "UYVY" else (0, 1)
    packed[:, :, luma] = y
    packed[:, ::2, chroma] = (u[:, ::2] + u[:, 1::2]) / 2
    packed[:, 1::2, chroma] = (v[:, ::2] + v[:, 1::2]) / 2
    back = decode(np.rint(packed).astype(np.uint8), encoding)
    assert np.abs(back.astype(int) - rgb).max() <= 9


def planar(rgb: np.ndarray, encoding: str, stride: int) -> bytes:
    y, u, v = to_yuv(rgb)
    if encoding == "nv24":
        chroma = np.stack([u, v], axis=2).reshape(HEIGHT, 2 * WIDTH)
        pad = 2 * (stride - WIDTH)
    else:
        u, v = ((c[::2, ::2] + c[1::2, ::2] + c[::2, 1::2] + c[1::2, 1::2]) / 4 for c in (u, v))
        pair = (u, v) if encoding == "nv12" else (v, u)
        chroma = np.stack(pair, axis=2).reshape(HEIGHT // 2, WIDTH)
        pad = stride - WIDTH
    planes = [np.pad(y, ((0, 0), (0, stride - WIDTH))), np.pad(chroma, ((0, 0), (0, pad)))]
    return b"".join(np.rint(plane).astype(np.uint8).tobytes() for plane in planes)


@pytest.mark.parametrize("encoding", ["nv12", "nv21", "nv24"])
@pytest.mark.parametrize("padding", [0, 8])
def test_planar_yuv_gives_the_colours_back(encoding, padding):
    rgb, stride = smooth(), WIDTH + padding
    data = planar(rgb, encoding, stride)
    back = raw_to_rgb(WIDTH, HEIGHT, encoding, stride, 0, data)
    assert np.abs(back.astype(int) - rgb).max() <= 12
    # The other convention: the step counts the bytes of all planes.
    again = raw_to_rgb(WIDTH, HEIGHT, encoding, len(data) // HEIGHT, 0, data)
    assert np.array_equal(again, back)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_find_the_colour(order, bits):
    colour = {"r": 200, "g": 120, "b": 30}
    mosaic = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place, name in enumerate(order):
        mosaic[place // 2 :: 2, place % 2 :: 2] = colour[name]
    samples = mosaic if bits == 8 else mosaic.astype("<u2") << 8
    assert np.all(decode(samples, f"bayer_{order}{bits}") == [200, 120, 30])


@pytest.mark.parametrize("encoding, dtype", [("16UC1", "<u2"), ("32FC1", "<f4"), ("64FC1", "<f8")])
def test_depth_is_stretched_and_a_missing_reading_is_black(encoding, dtype):
    depth = np.tile(np.linspace(500, 4000, WIDTH), (HEIGHT, 1)).astype(dtype)
    depth[3, 4] = 0 if dtype == "<u2" else np.nan
    if dtype != "<u2":
        depth[3, 5] = np.inf
    grey = decode(depth, encoding)[:, :, 0]
    assert grey[3, 4] == 0
    assert np.all(np.diff(grey[0].astype(int)) >= 0)
    assert grey[0, 0] == 1 and grey[0, -1] == 255


def test_depth_without_any_reading_is_black_and_even_depth_is_grey():
    assert np.all(decode(np.full((8, 8), np.nan, "<f4"), "32FC1") == 0)
    assert np.all(decode(np.full((8, 8), 2.5, "<f4"), "32FC1") == 128)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_every_encoding_gives_a_picture_from_any_bytes(encoding):
    row = WIDTH * ENCODINGS[encoding].bytes_per_pixel
    size = round(row * HEIGHT * ENCODINGS[encoding].planes)
    for big_endian in (False, True):
        rgb = raw_to_rgb(WIDTH, HEIGHT, encoding, row, big_endian, noise(size).tobytes())
        assert rgb.shape == (HEIGHT, WIDTH, 3) and rgb.dtype == np.uint8


ROSBAGS_ALSO = [
    *(f"bayer_{order}8" for order in ("rggb", "bggr", "gbrg", "grbg")),
    *("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "uyvy", "yuyv", "yuv422", "yuv422_yuy2"),
]


@pytest.mark.parametrize("encoding", ROSBAGS_ALSO)
def test_rosbags_image_converts_to_the_same_pixels(encoding):
    rosbags_image = pytest.importorskip("rosbags.image", reason="rosbags-image is not installed")
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    header = store.types["std_msgs/msg/Header"](
        stamp=store.types["builtin_interfaces/msg/Time"](sec=0, nanosec=0), frame_id=""
    )
    step = WIDTH * ENCODINGS[encoding].bytes_per_pixel
    message = store.types["sensor_msgs/msg/Image"](
        header=header,
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=0,
        step=step,
        data=noise(step * HEIGHT),
    )
    ours = raw_to_rgb(WIDTH, HEIGHT, encoding, step, 0, message.data)
    assert np.array_equal(ours, rosbags_image.message_to_cvimage(message, "rgb8"))


@pytest.mark.parametrize(
    "container", [bytes, bytearray, memoryview, lambda b: array.array("B", b), np.frombuffer]
)
def test_data_may_be_any_buffer(container):
    pixels = noise(HEIGHT, WIDTH, 3)
    raw = pixels.tobytes()
    data = np.frombuffer(raw, np.uint8) if container is np.frombuffer else container(raw)
    assert np.array_equal(raw_to_rgb(WIDTH, HEIGHT, "rgb8", WIDTH * 3, 0, data), pixels)


def test_rgb8_is_a_view_that_cannot_be_written():
    data = bytearray(noise(HEIGHT, WIDTH, 3).tobytes())
    rgb = raw_to_rgb(WIDTH, HEIGHT, "rgb8", WIDTH * 3, 0, data)
    assert np.shares_memory(rgb, np.frombuffer(data, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        rgb[0, 0, 0] = 1


def test_a_picture_is_decoded_once_and_only_when_looked_at():
    data = np.zeros(HEIGHT * WIDTH * 3, np.uint8)
    picture = picture_from_raw(
        stamp_ns=5, width=WIDTH, height=HEIGHT, encoding="bgr8", step=WIDTH * 3,
        is_bigendian=0, data=data, frame_id="eye",
    )  # fmt: skip
    data[:] = 7
    assert (picture.stamp_ns, picture.frame_id) == (5, "eye")
    assert np.all(picture.rgb() == 7)
    assert picture.rgb() is picture.rgb()


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"encoding": "rgb9"}, r"'rgb9' is unknown: known are .*mono8.*bayer_rggb8"),
        ({"encoding": ""}, "'' is unknown"),
        ({"encoding": "8UC2"}, "'8UC2' cannot be shown: a picture has 1, 3 or 4 channels"),
        ({"step": WIDTH * 3 - 1}, f"step of {WIDTH * 3 - 1} bytes: a row takes at least 72"),
        ({"step": WIDTH * 3 + 8}, "too short: it would be 1280"),
        ({"data": bytes(10)}, "has 10 bytes, too short: it would be 1152"),
        ({"data": bytes(1200)}, "has 1200 bytes, too long: it would be 1152"),
        ({"data": b""}, "has 0 bytes, too short"),
        ({"data": None}, "data of type NoneType cannot be read"),
        ({"width": 0}, "0x16 pixels is empty"),
        ({"height": 0}, "24x0 pixels is empty"),
        ({"width": 100_000, "height": 100_000}, "100000x100000 pixels is too large: .*8192x8192"),
        ({"encoding": "uyvy", "width": 23}, "the width must be even"),
        ({"encoding": "nv12", "height": 15}, "the height must be even"),
    ],
)
def test_bad_headers_are_refused_at_once_with_what_would_be_right(fields, said):
    good = {
        "stamp_ns": 0, "width": WIDTH, "height": HEIGHT, "encoding": "rgb8", "step": WIDTH * 3,
        "is_bigendian": 0, "data": bytes(WIDTH * HEIGHT * 3),
    }  # fmt: skip
    with pytest.raises(InputError, match=said):
        picture_from_raw(**{**good, **fields})


def test_what_opencv_refuses_is_an_input_error(monkeypatch):
    def refuse(*_):
        raise cv2.error("assertion failed")

    monkeypatch.setattr(cv2, "cvtColor", refuse)
    with pytest.raises(InputError, match="cannot convert a 24x16 mono8 picture: assertion failed"):
        decode(noise(HEIGHT, WIDTH), "mono8")


@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "bayer_rggb8", "uyvy", "nv12"])
def test_an_8k_picture_is_taken_and_scaled_down(encoding):
    width, height = 7680, 4320
    row = width * ENCODINGS[encoding].bytes_per_pixel
    data = np.full(round(row * height * ENCODINGS[encoding].planes), 128, np.uint8)
    rgb = raw_to_rgb(width, height, encoding, row, 0, data, max_side=448)
    assert rgb.shape == (252, 448, 3)
    assert np.ptp(rgb.reshape(-1, 3), axis=0).max() == 0


def test_a_machine_without_opencv_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    opencv.cache_clear()
    try:
        with pytest.raises(DeviceError, match="pip install opencv-python-headless"):
            decode(noise(HEIGHT, WIDTH), "mono8")
    finally:
        opencv.cache_clear()


@pytest.mark.parametrize("chosen, threads", [("", 1), ("2", 2)])
def test_opencv_keeps_to_one_thread_unless_the_user_chose(monkeypatch, chosen, threads):
    before = cv2.getNumThreads()
    monkeypatch.setenv("OPENCV_FOR_THREADS_NUM", chosen)
    cv2.setNumThreads(2)
    opencv.cache_clear()
    try:
        assert opencv().getNumThreads() == threads
    finally:
        cv2.setNumThreads(before)


def test_resizing_averages_keeps_the_shape_and_never_enlarges():
    chequers = (np.indices((64, 96)).sum(axis=0) % 2 * 200).astype(np.uint8)
    small = resize_to_fit(np.dstack([chequers] * 3), 48, 48)
    assert small.shape == (32, 48, 3)
    assert np.all(small == 100)
    assert resize_to_fit(small, 500, 500) is small
    assert resize_to_fit(np.zeros((1, 1000, 3), np.uint8), 10, 10).shape == (1, 10, 3)
