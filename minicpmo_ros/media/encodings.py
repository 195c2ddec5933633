"""Pixel encodings of sensor_msgs/Image and the layout that each prescribes for a picture's bytes.

Names and meaning are those of sensor_msgs/image_encodings.hpp, with nv12 beside them (V4L2 drivers
publish it). Everything here is arithmetic on the header: a message is accepted or refused before
any pixel is touched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

import numpy as np

from minicpmo_ros.errors import InputError

MAX_PIXELS = 8192 * 8192
"""A picture with more pixels is taken for a broken header."""


class Kind(Enum):
    """How samples become a picture."""

    GREY = "grey"
    COLOUR = "colour"
    BAYER = "bayer"
    PACKED_YUV = "packed yuv"
    PLANAR_YUV = "planar yuv"
    MEASURE = "measure"


@dataclass(frozen=True)
class Encoding:
    """One encoding: numpy type of a sample, samples a pixel (of the first plane), colour order.

    order: "rgb", "bgr", ... for colour; the first two pixels of the first two rows for Bayer
    ("rggb"); OpenCV's name for YUV. planes: the picture's bytes as multiples of its first plane.
    """

    name: str
    kind: Kind
    sample: str
    channels: int
    order: str = ""
    planes: float = 1.0

    @property
    def bytes_per_pixel(self) -> int:
        return np.dtype(self.sample).itemsize * self.channels


def _table() -> dict[str, Encoding]:
    rows = [
        Encoding("mono8", Kind.GREY, "u1", 1),
        Encoding("mono16", Kind.GREY, "u2", 1),
        Encoding("8UC1", Kind.GREY, "u1", 1),
        Encoding("yuv422", Kind.PACKED_YUV, "u1", 2, "UYVY"),
        Encoding("uyvy", Kind.PACKED_YUV, "u1", 2, "UYVY"),
        Encoding("yuv422_yuy2", Kind.PACKED_YUV, "u1", 2, "YUYV"),
        Encoding("yuyv", Kind.PACKED_YUV, "u1", 2, "YUYV"),
        Encoding("nv12", Kind.PLANAR_YUV, "u1", 1, "NV12", planes=1.5),
        Encoding("nv21", Kind.PLANAR_YUV, "u1", 1, "NV21", planes=1.5),
        Encoding("nv24", Kind.PLANAR_YUV, "u1", 1, "NV24", planes=3.0),
    ]
    for bits, sample in ((8, "u1"), (16, "u2")):
        for order in ("rgb", "bgr", "rgba", "bgra"):
            rows.append(Encoding(f"{order}{bits}", Kind.COLOUR, sample, len(order), order))
        for order in ("rggb", "bggr", "gbrg", "grbg"):
            rows.append(Encoding(f"bayer_{order}{bits}", Kind.BAYER, sample, 1, order))
        # OpenCV types say nothing of colour; whoever publishes one hands on a cv::Mat, blue first.
        for channels, order in ((3, "bgr"), (4, "bgra")):
            rows.append(Encoding(f"{bits}UC{channels}", Kind.COLOUR, sample, channels, order))
    measures = {"8S": "i1", "16U": "u2", "16S": "i2", "32S": "i4", "32F": "f4", "64F": "f8"}
    for prefix, sample in measures.items():
        for channels, order in ((1, ""), (3, "bgr"), (4, "bgra")):
            name = f"{prefix}C{channels}"
            if not any(row.name == name for row in rows):
                rows.append(Encoding(name, Kind.MEASURE, sample, channels, order))
    return {row.name: row for row in rows}


ENCODINGS: dict[str, Encoding] = _table()


def find_encoding(name: str) -> Encoding:
    """The encoding of that name. Raises `InputError` that lists what is known."""
    # OpenCV writes a single channel with and without "C1", and so do drivers.
    encoding = ENCODINGS.get(name) or ENCODINGS.get(f"{name}C1")
    if encoding is None:
        if re.fullmatch(r"(8U|8S|16U|16S|32S|32F|64F)C\d+", name):
            raise InputError(
                f"picture encoding {name!r} cannot be shown: a picture has 1, 3 or 4 channels"
            )
        raise InputError(f"picture encoding {name!r} is unknown: known are {', '.join(ENCODINGS)}")
    return encoding


@dataclass(frozen=True)
class Layout:
    """Where the pixels of one checked message lie: all sizes in pixels, `stride` in bytes."""

    encoding: Encoding
    width: int
    height: int
    stride: int


def check_size(width: int, height: int, what: str = "picture") -> None:
    """Raises `InputError` unless 0 < width * height <= `MAX_PIXELS`."""
    if width <= 0 or height <= 0:
        raise InputError(f"{what} of {width}x{height} pixels is empty: both must be positive")
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{what} of {width}x{height} pixels is too large: at most {MAX_PIXELS} pixels "
            "(8192x8192) are taken"
        )


def check_layout(width: int, height: int, encoding: str, step: int, data_bytes: int) -> Layout:
    """Checks the header of a sensor_msgs/Image against the length of its data.

    width, height in pixels; step: bytes from one row to the next. Raises `InputError` for an
    unknown encoding, an empty or absurd size, a step shorter than a row, data of another length.
    """
    found = find_encoding(encoding)
    check_size(width, height)
    what = f"{width}x{height} {encoding} picture"
    chroma = found.kind in (Kind.PACKED_YUV, Kind.PLANAR_YUV) and found.order != "NV24"
    if chroma and width % 2:
        raise InputError(f"{what}: two neighbours share a colour, so the width must be even")
    if found.planes == 1.5 and height % 2:
        raise InputError(f"{what}: two rows share their colours, so the height must be even")
    row = width * found.bytes_per_pixel
    if found.kind is Kind.PLANAR_YUV and data_bytes == step * height:
        # Some drivers count all planes into the step (bytes a row of the whole picture).
        step = round(step / found.planes)
    if step < row:
        raise InputError(f"{what} has a step of {step} bytes: a row takes at least {row}")
    wanted = round(step * height * found.planes)
    if data_bytes != wanted:
        fault = "short" if data_bytes < wanted else "long"
        raise InputError(
            f"{what} with a step of {step} has {data_bytes} bytes, too {fault}: "
            f"it would be {wanted}"
        )
    return Layout(found, width, height, step)
