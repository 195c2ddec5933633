"""sensor_msgs/CompressedImage, given as plain fields, to uint8 RGB, and pictures to JPEG.

The size and the end of a file are read from its own bytes before OpenCV may allocate anything:
a header that promises a gigapixel, or a JPEG whose tail got lost, is refused at once.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.encodings import check_size
from minicpmo_ros.media.image import as_bytes, resize_to_fit, stretch
from minicpmo_ros.media.opencv import opencv
from minicpmo_ros.messages import Picture

_DEPTH_HEADER = struct.Struct("<i2f")


def picture_from_compressed(
    *,
    stamp_ns: int,
    format: str,
    data: Any,
    frame_id: str = "",
    max_side: int | None = None,
) -> Picture:
    """The `Picture` of a sensor_msgs/CompressedImage, decoded when somebody looks at it.

    Header, size and completeness are checked at once (`InputError`); damage inside the file shows
    when it is decoded. max_side: larger pictures are scaled down to it.
    """
    flat = as_bytes(data)
    check_compressed(format, flat)
    return Picture(stamp_ns, lambda: compressed_to_rgb(format, flat, max_side), frame_id)


def compressed_to_rgb(format: str, data: Any, max_side: int | None = None) -> np.ndarray:
    """uint8 [height, width, 3], red first, of JPEG, PNG or WebP bytes.

    The bytes say what they are; `format` ("jpeg", "bgr8; jpeg compressed bgr8") is trusted only
    for what they cannot say: "compressedDepth", whose PNG starts with 12 bytes of its own. Colours
    are taken as the file's own, as every viewer does. 16-bit grey is depth and stretched (see
    `stretch`) unless the format says mono16. Raises `InputError`.
    """
    flat = as_bytes(data)
    codec, width, height = check_compressed(format, flat)
    if _is_depth(format):
        return _fit(_grey_to_rgb(stretch(_depth(format, flat))), max_side)
    cv2 = opencv()
    if codec == "png" and flat[24] == 16:
        return _fit(_deep_png(format, flat), max_side)
    # libjpeg scales by 2, 4, 8 while decoding: an 8K picture for a 448 pixel brain costs a tenth.
    flags = cv2.IMREAD_COLOR
    if max_side is not None and codec == "jpeg":
        for factor in (2, 4, 8):
            if max(width, height) >= factor * max_side:
                flags = getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}")
    bgr = _imdecode(flat, flags, codec)
    rgb: np.ndarray = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return _fit(rgb, max_side)


def encode_jpeg(rgb: np.ndarray, quality: int = 85) -> bytes:
    """JPEG bytes of uint8 RGB [height, width, 3] or grey [height, width]; quality 1 to 100."""
    cv2 = opencv()
    if not 1 <= quality <= 100:
        raise InputError(f"JPEG quality {quality} is outside 1 to 100")
    if rgb.dtype != np.uint8 or rgb.ndim not in (2, 3) or rgb.size == 0:
        raise InputError(
            f"a JPEG is made of uint8 [height, width, 3], not {rgb.dtype} {list(rgb.shape)}"
        )
    picture = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.ndim == 3 else rgb
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InputError(f"OpenCV could not encode a picture of shape {list(rgb.shape)} as JPEG")
    return bytes(data.data)


def thumbnail_jpeg(
    rgb: np.ndarray, width: int = 160, height: int = 120, quality: int = 75
) -> bytes:
    """A small JPEG of the picture, scaled down in its shape to lie within width x height."""
    return encode_jpeg(resize_to_fit(rgb, width, height), quality)


def check_compressed(format: str, data: Any) -> tuple[str, int, int]:
    """(codec, width, height) of a compressed picture from its header; raises `InputError`."""
    flat = as_bytes(data)
    if not len(flat):
        raise InputError(f"compressed picture ({format!r}) is empty: it has no bytes")
    if _is_depth(format):
        if "rvl" in format.lower():
            raise InputError(
                f"compressed picture of format {format!r}: RVL depth is not decoded; publish "
                "compressedDepth as png, or the raw picture"
            )
        flat = flat[_DEPTH_HEADER.size :]
    body = flat[:12].tobytes()
    if body.startswith(b"\xff\xd8"):
        codec, (width, height) = "jpeg", _jpeg_size(flat.data)
    elif body.startswith(b"\x89PNG\r\n\x1a\n"):
        codec, (width, height) = "png", _png_size(flat.data)
    elif body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        codec, (width, height) = "webp", _webp_size(flat.data)
    else:
        raise InputError(
            f"compressed picture of format {format!r} starts with {body[:4].hex(' ')}: "
            "neither JPEG, PNG nor WebP"
        )
    if _is_depth(format) and codec != "png":
        raise InputError(f"compressed picture of format {format!r} holds {codec}, not png")
    check_size(width, height, f"compressed {codec} picture")
    return codec, width, height


def _jpeg_size(data: memoryview) -> tuple[int, int]:
    """Walks the segments up to the first scan (ITU-T T.81, B.1); the file must end with EOI."""
    at, size = 2, None
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise InputError(f"JPEG picture is damaged: no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            size = (width, height)
        if marker == 0xDA:
            # Inside a scan every 0xFF is stuffed, so this can only be the end. Cameras pad
            # behind it, so it need not be the last two bytes.
            tail = data[at:].tobytes()
            if size is None or b"\xff\xd9" not in tail:
                break
            return size
        at += 2 + length
    raise InputError(f"JPEG picture is truncated: {len(data)} bytes and no end-of-image marker")


def _png_size(data: memoryview) -> tuple[int, int]:
    if len(data) < 33 or b"IEND" not in data[-64:].tobytes():
        raise InputError(f"PNG picture is truncated: {len(data)} bytes and no IEND chunk")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _webp_size(data: memoryview) -> tuple[int, int]:
    """The three headers of a WebP file (RFC 9649): lossy, lossless and extended."""
    wanted = int.from_bytes(data[4:8], "little") + 8
    if len(data) < max(wanted, 30):
        raise InputError(f"WebP picture is truncated: {len(data)} of {wanted} bytes")
    kind = bytes(data[12:16])
    if kind == b"VP8X":
        low, high = data[24:27], data[27:30]
        return int.from_bytes(low, "little") + 1, int.from_bytes(high, "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _is_depth(format: str) -> bool:
    return "compresseddepth" in format.lower()


def _depth(format: str, flat: np.ndarray) -> np.ndarray:
    """float32 [height, width] metres, or uint16 millimetres, of compressed_depth_image_transport.

    Floats travel as quantised inverse depth: depth = a / (code - b), code 0 without a reading,
    with a and b in the 12 bytes before the PNG.
    """
    cv2 = opencv()
    codes = _imdecode(flat[_DEPTH_HEADER.size :], cv2.IMREAD_UNCHANGED, "png")
    if codes.ndim != 2:
        raise InputError(f"compressed picture of format {format!r} holds colours, not depth")
    if not format.startswith("32FC1"):
        return codes
    _, a, b = _DEPTH_HEADER.unpack_from(flat.data)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(a) / (codes.astype(np.float32) - np.float32(b))
    depth[codes == 0] = np.nan
    return depth


def _deep_png(format: str, flat: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    deep = _imdecode(flat, cv2.IMREAD_UNCHANGED, "png")
    if deep.ndim == 3:
        rgb: np.ndarray = cv2.cvtColor((deep[:, :, :3] >> 8).astype(np.uint8), cv2.COLOR_BGR2RGB)
        return rgb
    if re.match(r"\s*mono16", format):
        return _grey_to_rgb((deep >> 8).astype(np.uint8))
    return _grey_to_rgb(stretch(deep))


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    rgb: np.ndarray = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    return rgb


def _imdecode(flat: np.ndarray, flags: int, codec: str) -> np.ndarray:
    cv2 = opencv()
    try:
        picture: np.ndarray | None = cv2.imdecode(flat, flags)
    except cv2.error as error:
        raise InputError(f"compressed {codec} picture cannot be decoded: {error}") from error
    if picture is None:
        raise InputError(f"compressed {codec} picture of {len(flat)} bytes is damaged")
    return picture


def _fit(rgb: np.ndarray, max_side: int | None) -> np.ndarray:
    return rgb if max_side is None else resize_to_fit(rgb, max_side, max_side)
