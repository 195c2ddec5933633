"""JPEG, PNG and WebP pictures, ROS's format strings, compressed depth, and damaged files."""

import struct

import cv2
import numpy as np
import pytest

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.compressed import (
    check_compressed,
    compressed_to_rgb,
    encode_jpeg,
    picture_from_compressed,
    thumbnail_jpeg,
)


def scene(height: int = 48, width: int = 64) -> np.ndarray:
    """RGB with a red left half and a blue right half over a soft ramp."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, : width // 2, 0] = 220
    rgb[:, width // 2 :, 2] = 220
    rgb[:, :, 1] = np.linspace(0, 120, height).astype(np.uint8)[:, None]
    return rgb


def encoded(rgb: np.ndarray, suffix: str, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, rgb[:, :, ::-1] if rgb.ndim == 3 else rgb, options)
    assert done
    return data.tobytes()


@pytest.mark.parametrize(
    "format, suffix",
    [
        ("png", ".png"),
        ("bgr8; png compressed bgr8", ".png"),
        ("rgb8; png compressed bgr8", ".png"),
        ("webp", ".webp"),
        ("jpeg", ".png"),  # the bytes know better
    ],
)
def test_lossless_files_come_back_exactly_whatever_the_format_string(format, suffix):
    rgb = scene()
    data = encoded(rgb, suffix, *((cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ()))
    assert np.array_equal(compressed_to_rgb(format, data), rgb)


@pytest.mark.parametrize("format", ["jpeg", "jpg", "", "bgr8; jpeg compressed bgr8", "rgb8; jpeg"])
def test_jpeg_comes_back_nearly(format):
    rgb = scene()
    back = compressed_to_rgb(format, encode_jpeg(rgb, 95))
    assert back.shape == rgb.shape
    assert np.abs(back.astype(int) - rgb).mean() < 5


def test_grey_files_become_rgb():
    grey = scene()[:, :, 1]
    assert np.array_equal(
        compressed_to_rgb("mono8; png compressed mono8", encoded(grey, ".png")),
        np.dstack([grey] * 3),
    )


def test_16_bit_png_is_depth_unless_it_is_called_mono16():
    ramp = np.tile(np.linspace(1000, 3000, 64), (48, 1)).astype(np.uint16)
    data = encoded(ramp, ".png")
    depth = compressed_to_rgb("16UC1; png compressed ", data)
    assert depth.min() == 1 and depth.max() == 255
    plain = compressed_to_rgb("mono16; png compressed ", data)
    assert np.array_equal(plain[:, :, 0], ramp >> 8)


def test_compressed_depth_of_millimetres():
    depth = np.tile(np.linspace(500, 4000, 64), (48, 1)).astype(np.uint16)
    depth[5, 5] = 0
    data = struct.pack("<i2f", 0, 0.0, 0.0) + encoded(depth, ".png")
    grey = compressed_to_rgb("16UC1; compressedDepth png", data)[:, :, 0]
    assert grey[5, 5] == 0
    assert grey[0, 0] == 1 and grey[0, -1] == 255


def test_compressed_depth_of_metres_undoes_the_inverse_depth():
    depth = np.tile(np.linspace(0.5, 8.0, 64), (48, 1))
    a, b = 10_000.0, 0.5
    codes = np.rint(a / depth + b).astype(np.uint16)
    codes[5, 5] = 0
    data = struct.pack("<i2f", 0, a, b) + encoded(codes, ".png")
    grey = compressed_to_rgb("32FC1; compressedDepth", data)[:, :, 0].astype(int)
    assert grey[5, 5] == 0
    # Linear in metres, not in codes: the middle column is half way.
    assert abs(grey[0, 32] - 128) < 10


def test_a_picture_decodes_lazily():
    picture = picture_from_compressed(
        stamp_ns=9, format="jpeg", data=encode_jpeg(scene()), frame_id="eye", max_side=32
    )
    assert (picture.stamp_ns, picture.frame_id) == (9, "eye")
    assert picture.rgb().shape == (24, 32, 3)


@pytest.mark.parametrize("quality", [1, 85, 100])
def test_progressive_and_plain_jpeg_tell_their_size(quality):
    rgb = scene(50, 70)
    assert check_compressed("jpeg", encode_jpeg(rgb, quality)) == ("jpeg", 70, 50)
    progressive = encoded(rgb, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert check_compressed("jpeg", progressive) == ("jpeg", 70, 50)


@pytest.mark.parametrize("quality", [50, 101])
def test_webp_tells_its_size(quality):
    data = encoded(scene(50, 70), ".webp", cv2.IMWRITE_WEBP_QUALITY, quality)
    assert check_compressed("webp", data) == ("webp", 70, 50)


def test_webp_with_alpha_tells_its_size():
    rgba = np.dstack([scene(50, 70), np.full((50, 70), 99, np.uint8)])
    data = cv2.imencode(".webp", rgba, [cv2.IMWRITE_WEBP_QUALITY, 50])[1].tobytes()
    assert data[12:16] == b"VP8X"
    assert check_compressed("webp", data) == ("webp", 70, 50)


def test_padding_behind_a_jpeg_is_no_fault():
    data = encode_jpeg(scene())
    assert np.array_equal(
        compressed_to_rgb("jpeg", data + bytes(100)), compressed_to_rgb("jpeg", data)
    )


@pytest.mark.parametrize("suffix, said", [(".jpg", "JPEG"), (".png", "PNG"), (".webp", "WebP")])
def test_truncated_files_are_refused_at_once_at_any_length(suffix, said):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    data = encoded(noise, suffix)
    for kept in (12, 40, len(data) // 2, len(data) - 20):
        with pytest.raises(InputError, match=f"{said} picture is truncated"):
            picture_from_compressed(stamp_ns=0, format="x", data=data[:kept])


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + chunk + b"crc!" + b"\x00\x00\x00\x00IENDcrc!"


@pytest.mark.parametrize(
    "format, data, said",
    [
        ("jpeg", b"", "is empty"),
        ("h264", b"\x00\x00\x00\x01\x67", "starts with 00 00 00 01: neither JPEG, PNG nor WebP"),
        ("jpeg", b"\xff\xd8" + b"\x00" * 40, "no marker at byte 2"),
        ("png", png_header(60_000, 60_000), "60000x60000 pixels is too large"),
        ("png", png_header(0, 7), "0x7 pixels is empty"),
        ("16UC1; compressedDepth rvl", bytes(40), "RVL depth is not decoded"),
        ("16UC1; compressedDepth png", bytes(12) + encode_jpeg(scene()), "holds jpeg, not png"),
        ("jpeg", [255, 216], "data of type list"),
    ],
)
def test_what_is_no_picture_is_refused_at_once(format, data, said):
    with pytest.raises(InputError, match=said):
        picture_from_compressed(stamp_ns=0, format=format, data=data)


def test_damage_inside_a_file_shows_when_it_is_decoded():
    data = bytearray(encoded(scene(), ".png"))
    data[60:120] = bytes(60)
    picture = picture_from_compressed(stamp_ns=0, format="png", data=bytes(data))
    with pytest.raises(InputError, match=r"png picture of .* is damaged"):
        picture.rgb()


def test_colour_where_depth_was_promised_is_refused():
    data = bytes(12) + encoded(scene(), ".png")
    with pytest.raises(InputError, match="holds colours, not depth"):
        compressed_to_rgb("16UC1; compressedDepth png", data)


@pytest.mark.parametrize("max_side", [448, 1000, 3000])
def test_a_large_jpeg_is_scaled_while_decoding_to_the_same_picture(max_side):
    large = cv2.resize(scene(), (4096, 3072), interpolation=cv2.INTER_LINEAR)
    small = compressed_to_rgb("jpeg", encode_jpeg(large, 95), max_side=max_side)
    assert small.shape == (max_side * 3 // 4, max_side, 3)
    expected = cv2.resize(large, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 2


def test_thumbnails_fit_their_box():
    data = thumbnail_jpeg(scene(480, 640), 160, 90)
    assert check_compressed("jpeg", data) == ("jpeg", 120, 90)


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros(4)])
def test_only_uint8_pictures_are_encoded(bad):
    with pytest.raises(InputError, match="a JPEG is made of uint8"):
        encode_jpeg(bad)


@pytest.mark.parametrize("quality", [0, 101])
def test_the_quality_is_checked(quality):
    with pytest.raises(InputError, match="outside 1 to 100"):
        encode_jpeg(scene(), quality)
