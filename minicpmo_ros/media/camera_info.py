"""What sensor_msgs/CameraInfo says of a camera: read from a calibration file, scaled to a picture.

Every published picture comes with one. Without a calibration it follows the ROS convention: K is
all zeros, and a client takes K[0] == 0 for "uncalibrated". A field of view, where it is known,
gives an ideal pinhole instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minicpmo_ros.errors import ConfigError

_DISTORTION_TERMS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class CameraInfo:
    """The fields of sensor_msgs/CameraInfo, matrices row by row, focal lengths in pixels.

    d: distortion; k: 3x3 intrinsic; r: 3x3 rectification; p: 3x4 projection. Raises `ConfigError`
    where a matrix has the wrong length or the distortion does not fit its model.
    """

    width: int
    height: int
    distortion_model: str = "plumb_bob"
    d: tuple[float, ...] = (0.0,) * 5
    k: tuple[float, ...] = (0.0,) * 9
    r: tuple[float, ...] = (0.0,) * 9
    p: tuple[float, ...] = (0.0,) * 12
    camera_name: str = ""

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ConfigError(
                f"camera calibration is for {self.width}x{self.height} pixels: "
                "both must be positive"
            )
        for name, wanted in (("k", 9), ("r", 9), ("p", 12)):
            if len(getattr(self, name)) != wanted:
                raise ConfigError(
                    f"camera calibration has {len(getattr(self, name))} numbers in {name}: "
                    f"it would be {wanted}"
                )
        if not all(math.isfinite(x) for x in (*self.d, *self.k, *self.r, *self.p)):
            raise ConfigError("camera calibration holds a number that is not finite")
        terms = _DISTORTION_TERMS.get(self.distortion_model)
        if terms and len(self.d) not in terms:
            raise ConfigError(
                f"camera calibration: {self.distortion_model} has "
                f"{' or '.join(map(str, terms))} distortion coefficients, not {len(self.d)}"
            )

    @property
    def calibrated(self) -> bool:
        return self.k[0] != 0.0

    @classmethod
    def pinhole(cls, width: int, height: int, horizontal_fov_deg: float) -> CameraInfo:
        """An ideal camera of that field of view: no distortion, square pixels, centred."""
        if not 0.0 < horizontal_fov_deg < 180.0:
            raise ConfigError(
                f"horizontal field of view is {horizontal_fov_deg} degrees: "
                "it would be above 0 and below 180, or leave it out"
            )
        focal = width / 2 / math.tan(math.radians(horizontal_fov_deg) / 2)
        # Whole numbers are pixel centres, so the centre of 640 columns is 319.5.
        cx, cy = (width - 1) / 2, (height - 1) / 2
        k = (focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0)
        p = (focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0)
        return cls(width, height, k=k, r=_IDENTITY, p=p)

    def scaled(self, width: int, height: int) -> CameraInfo:
        """The same camera giving pictures of another size of the same view.

        A pixel x moves to (x + 0.5) * s - 0.5, as cv2.resize and binning on the sensor do it.
        """
        if (width, height) == (self.width, self.height):
            return self
        if not self.calibrated:
            return replace(self, width=width, height=height)
        sx, sy = width / self.width, height / self.height
        k, p = list(self.k), list(self.p)
        for matrix, columns in ((k, 3), (p, 4)):
            for row, scale in ((0, sx), (1, sy)):
                start = row * columns
                matrix[start : start + columns] = [
                    scale * value for value in matrix[start : start + columns]
                ]
                matrix[start + 2] += scale * 0.5 - 0.5
        return replace(self, width=width, height=height, k=tuple(k), p=tuple(p))


def load_camera_info(path: str | Path) -> CameraInfo:
    """Reads a calibration as camera_info_manager and cameracalibrator write it.

    Raises `ConfigError` naming the file and the key that is missing or wrong.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"camera calibration {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"camera calibration {path} is not YAML: {error}") from error
    try:
        return _from_mapping(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _from_mapping(content: Any) -> CameraInfo:
    if not isinstance(content, Mapping):
        raise ConfigError("camera calibration is not a YAML mapping with image_width and so on")
    k = _matrix(content, "camera_matrix", 3, 3)
    p = _matrix(content, "projection_matrix", 3, 4) if "projection_matrix" in content else None
    return CameraInfo(
        width=_whole(content, "image_width"),
        height=_whole(content, "image_height"),
        distortion_model=_model(content),
        d=_matrix(content, "distortion_coefficients", 1, None),
        k=k,
        r=_matrix(content, "rectification_matrix", 3, 3)
        if "rectification_matrix" in content
        else _IDENTITY,
        p=p if p is not None else (*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0),
        camera_name=str(content.get("camera_name", "")),
    )


def _model(content: Mapping[str, Any]) -> str:
    # camera_calibration_parsers writes "plumb_bob"; a file may leave it out, meaning the same.
    model = content.get("distortion_model", content.get("camera_model", "plumb_bob"))
    return "plumb_bob" if model == "pinhole" else str(model)


def _whole(content: Mapping[str, Any], key: str) -> int:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"camera calibration: {key} is {value!r}, a whole number is wanted")
    return value


def _matrix(
    content: Mapping[str, Any], key: str, rows: int, columns: int | None
) -> tuple[float, ...]:
    """The numbers of {rows, cols, data}; columns None takes any number of them."""
    entry = content.get(key)
    data = entry.get("data") if isinstance(entry, Mapping) else None
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise ConfigError(f"camera calibration: {key} is missing, or has no list named data")
    numbers = [x for x in data if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(numbers) != len(data):
        raise ConfigError(f"camera calibration: {key} holds something that is not a number")
    if columns is not None and len(data) != rows * columns:
        raise ConfigError(
            f"camera calibration: {key} has {len(data)} numbers, "
            f"{rows * columns} ({rows}x{columns}) are wanted"
        )
    return tuple(float(x) for x in numbers)
