"""sensor_msgs/Image, given as plain fields, to uint8 RGB; scaling of pictures.

OpenCV converts, on a view that honours the message's step: nothing is copied before it must be.
rosbags-image and cv_bridge do the same conversions, but the first ignores the step and neither
reads NV24, so one path serves recordings, plain machines and robots alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.encodings import Encoding, Kind, Layout, check_layout
from minicpmo_ros.media.opencv import opencv
from minicpmo_ros.messages import Picture

# OpenCV names a Bayer pattern after the second row's second and third pixel, ROS after the first
# row's first two: BayerBG is RGGB.
_BAYER = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}

# ITU-R BT.601, studio range (Y 16..235), as OpenCV does it for the other YUV encodings.
_YUV_TO_RGB = np.array(
    [
        [1.164, 0.0, 1.596, -16 * 1.164 - 128 * 1.596],
        [1.164, -0.391, -0.813, -16 * 1.164 + 128 * (0.391 + 0.813)],
        [1.164, 2.018, 0.0, -16 * 1.164 - 128 * 2.018],
    ]
)


def picture_from_raw(
    *,
    stamp_ns: int,
    width: int,
    height: int,
    encoding: str,
    step: int,
    is_bigendian: int | bool,
    data: Any,
    frame_id: str = "",
    max_side: int | None = None,
) -> Picture:
    """The `Picture` of a sensor_msgs/Image, decoded when somebody looks at it.

    data: anything with a buffer (bytes, array.array, numpy uint8), held until the picture goes.
    max_side: larger pictures are scaled down to it, keeping their shape. Raises `InputError` at
    once where header and data do not agree.
    """
    layout, flat = checked_layout(width, height, encoding, step, data)
    big_endian = bool(is_bigendian)
    return Picture(stamp_ns, lambda: _to_rgb(layout, big_endian, flat, max_side), frame_id)


def raw_to_rgb(
    width: int,
    height: int,
    encoding: str,
    step: int,
    is_bigendian: int | bool,
    data: Any,
    max_side: int | None = None,
) -> np.ndarray:
    """uint8 [height, width, 3], red first, of a sensor_msgs/Image.

    16-bit grey and colour keep their upper byte. Measurements (16UC1 and 32FC1 depth, thermal, any
    signed or floating type) have no range of their own: each picture is stretched from its 1st to
    its 99th percentile, zero of 16UC1, NaN and infinity (REP 118: no reading) being black. rgb8
    without padding comes back as a read-only view of the data. Raises `InputError`.
    """
    layout, flat = checked_layout(width, height, encoding, step, data)
    return _to_rgb(layout, bool(is_bigendian), flat, max_side)


def checked_layout(
    width: int, height: int, encoding: str, step: int, data: Any
) -> tuple[Layout, np.ndarray]:
    """The layout of a message and its data as uint8 [bytes], not copied. Raises `InputError`."""
    flat = as_bytes(data)
    return check_layout(width, height, encoding, step, len(flat)), flat


def as_bytes(data: Any) -> np.ndarray:
    """A view of any contiguous buffer as uint8 [bytes]; raises `InputError` for anything else."""
    try:
        return np.frombuffer(data, dtype=np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        if hasattr(data, "__len__") and len(data) == 0:
            return np.zeros(0, dtype=np.uint8)
        raise InputError(
            f"picture data of type {type(data).__name__} cannot be read ({error}): "
            "bytes, an array.array or a contiguous numpy array is wanted"
        ) from error


def resize_to_fit(rgb: np.ndarray, max_width: int, max_height: int) -> np.ndarray:
    """The picture scaled down, in its shape, to lie within the box; itself where it does already.

    rgb: uint8 [height, width] or [height, width, channels]; averaged over each pixel's area.
    """
    height, width = rgb.shape[:2]
    scale = min(max_width / width, max_height / height)
    if scale >= 1.0:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    cv2 = opencv()
    resized: np.ndarray = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return resized


def _to_rgb(layout: Layout, big_endian: bool, flat: np.ndarray, max_side: int | None) -> np.ndarray:
    encoding = layout.encoding
    try:
        return _decode(layout, big_endian, flat, max_side)
    except opencv().error as error:
        raise InputError(
            f"OpenCV cannot convert a {layout.width}x{layout.height} {encoding.name} picture: "
            f"{error}"
        ) from error


def _decode(layout: Layout, big_endian: bool, flat: np.ndarray, max_side: int | None) -> np.ndarray:
    encoding = layout.encoding
    if encoding.kind is Kind.PLANAR_YUV:
        return _fit(_planar_yuv(layout, flat), max_side)
    pixels = _pixels(layout, big_endian, flat)
    if encoding.kind is Kind.MEASURE:
        pixels = stretch(pixels)
    elif encoding.sample == "u2":
        pixels = (pixels >> 8).astype(np.uint8)
    if encoding.kind in (Kind.BAYER, Kind.PACKED_YUV):
        return _fit(_convert(encoding, pixels), max_side)
    return _convert(encoding, _fit(pixels, max_side))


def _pixels(layout: Layout, big_endian: bool, flat: np.ndarray) -> np.ndarray:
    """A view [height, width] or [height, width, channels] of the message's data."""
    encoding = layout.encoding
    sample = np.dtype(encoding.sample).newbyteorder(">" if big_endian else "<")
    shape: tuple[int, ...] = (layout.height, layout.width)
    strides: tuple[int, ...] = (layout.stride, encoding.bytes_per_pixel)
    if encoding.channels > 1:
        shape, strides = (*shape, encoding.channels), (*strides, sample.itemsize)
    view = np.ndarray(shape, sample, buffer=flat.data, strides=strides)
    view.flags.writeable = False
    return view


def _convert(encoding: Encoding, pixels: np.ndarray) -> np.ndarray:
    """uint8 samples to uint8 RGB; the view itself where it is RGB already."""
    if encoding.order == "rgb":
        return np.ascontiguousarray(pixels)
    cv2 = opencv()
    if encoding.kind is Kind.BAYER:
        code = f"COLOR_Bayer{_BAYER[encoding.order]}2RGB"
    elif encoding.kind is Kind.PACKED_YUV:
        code = f"COLOR_YUV2RGB_{encoding.order}"
    else:
        code = f"COLOR_{encoding.order.upper() or 'GRAY'}2RGB"
    rgb: np.ndarray = cv2.cvtColor(pixels, getattr(cv2, code))
    return rgb


def _planar_yuv(layout: Layout, flat: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    width, height, stride = layout.width, layout.height, layout.stride
    rgb: np.ndarray
    if layout.encoding.order == "NV24":
        luma, chroma = np.split(flat, [stride * height])
        y = luma.reshape(height, stride)[:, :width]
        uv = chroma.reshape(height, 2 * stride)[:, : 2 * width].reshape(height, width, 2)
        rgb = cv2.transform(np.dstack([y, uv]), _YUV_TO_RGB)
        return rgb
    planes = np.ascontiguousarray(flat.reshape(-1, stride)[:, :width])
    rgb = cv2.cvtColor(planes, getattr(cv2, f"COLOR_YUV2RGB_{layout.encoding.order}"))
    return rgb


def stretch(measured: np.ndarray) -> np.ndarray:
    """Any numbers [height, width(, channels)] to uint8: 1st percentile to 1, 99th to 255.

    0 is kept for pixels without a reading: NaN, infinity, and zero where the type is unsigned.
    The percentiles are those of every fourth row and column: good to a per cent at VGA, and the
    full sort would cost more than all the rest.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        values = measured.astype(np.float32)
    valid = np.isfinite(values)
    if measured.dtype.kind == "u":
        valid &= values != 0
    sample = values[::4, ::4][valid[::4, ::4]]
    if not sample.size:
        sample = values[valid]
    if not sample.size:
        return np.zeros(measured.shape, dtype=np.uint8)
    low, high = np.percentile(sample, (1, 99))
    if high == low:
        return np.where(valid, 128, 0).astype(np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        part = np.clip((values - low) / (high - low), 0.0, 1.0)
        return np.where(valid, np.rint(part * 254.0) + 1.0, 0).astype(np.uint8)


def _fit(pixels: np.ndarray, max_side: int | None) -> np.ndarray:
    if max_side is None or max(pixels.shape[:2]) <= max_side:
        return pixels
    return resize_to_fit(pixels, max_side, max_side)
