"""The picture lane while it is read: counts every picture, keeps few of them as thumbnails."""

from __future__ import annotations

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, Picture
from minicpmo_ros.replay.report.view import PictureLane, Span, Thumbnail


class PictureLaneBuilder:
    """Keeps at most `most` thumbnails, evenly over the recording however long it is.

    Only a picture that is kept gets decoded. When they are too many, every second one goes and the
    distance between them doubles.
    """

    def __init__(self, most: int = 120, width: int = 320, gap_ns: int = 1_500 * NS_PER_MS) -> None:
        self._most = max(2, most)
        self._width = width
        self._gap_ns = gap_ns
        self._apart_ns = NS_PER_S // 4
        self._next_ns: int | None = None
        self._last_ns: int | None = None
        self._kept: list[Thumbnail] = []
        self._gaps: list[Span] = []
        self._count = 0
        self._unreadable = 0

    def add(self, picture: Picture) -> None:
        self._count += 1
        stamp = picture.stamp_ns
        if self._last_ns is not None and stamp - self._last_ns > self._gap_ns:
            self._gaps.append(Span(self._last_ns, stamp))
        self._last_ns = max(stamp, self._last_ns or stamp)
        if self._next_ns is not None and stamp < self._next_ns:
            return
        try:
            self._kept.append(thumbnail(picture, self._width))
        except InputError:
            self._unreadable += 1
            return
        self._next_ns = stamp + self._apart_ns
        if len(self._kept) > self._most:
            self._kept = self._kept[::2]
            self._apart_ns *= 2
            self._next_ns = self._kept[-1].stamp_ns + self._apart_ns

    def build(self, stop_ns: int) -> PictureLane:
        """stop_ns: end of the recording; a camera silent until then has a gap."""
        gaps = list(self._gaps)
        if self._last_ns is not None and stop_ns - self._last_ns > self._gap_ns:
            gaps.append(Span(self._last_ns, stop_ns))
        return PictureLane(self._count, self._unreadable, tuple(self._kept), tuple(gaps))


def thumbnail(picture: Picture, width: int) -> Thumbnail:
    """A JPEG at most `width` pixels wide. Raises InputError where the picture cannot be decoded."""
    import cv2

    rgb = picture.rgb()
    if rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape or rgb.dtype != np.uint8:
        raise InputError(
            f"picture of shape {rgb.shape} and type {rgb.dtype}: it must be uint8 "
            "[height, width, 3] with at least one pixel"
        )
    scale = min(1.0, width / rgb.shape[1])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
    done, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80]
    )
    if not done:
        raise InputError(f"picture of {rgb.shape[1]} x {rgb.shape[0]} pixels cannot be encoded")
    return Thumbnail(picture.stamp_ns, size[0], size[1], jpeg.tobytes())
