"""CameraInfo from calibration files, from a field of view, and scaled with the picture."""

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.media.camera_info import CameraInfo, load_camera_info

CALIBRATION = {
    "image_width": 640,
    "image_height": 480,
    "camera_name": "front",
    "camera_matrix": {"rows": 3, "cols": 3, "data": [600.5, 0, 322.1, 0, 601.5, 238.9, 0, 0, 1]},
    "distortion_model": "plumb_bob",
    "distortion_coefficients": {"rows": 1, "cols": 5, "data": [-0.2, 0.05, 0.001, -0.002, 0]},
    "rectification_matrix": {"rows": 3, "cols": 3, "data": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
    "projection_matrix": {
        "rows": 3, "cols": 4, "data": [580, 0, 321, -58, 0, 590, 239, 0, 0, 0, 1, 0],
    },
}  # fmt: skip


def write(tmp_path, content) -> str:
    path = tmp_path / "front.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def test_a_calibration_file_is_read(tmp_path):
    info = load_camera_info(write(tmp_path, CALIBRATION))
    assert (info.width, info.height, info.camera_name) == (640, 480, "front")
    assert info.distortion_model == "plumb_bob" and info.calibrated
    assert info.k == (600.5, 0, 322.1, 0, 601.5, 238.9, 0, 0, 1)
    assert info.d == (-0.2, 0.05, 0.001, -0.002, 0)
    assert info.p[3] == -58


def test_rectification_and_projection_may_be_left_out(tmp_path):
    content = {k: v for k, v in CALIBRATION.items() if k[:4] not in ("rect", "proj")}
    info = load_camera_info(write(tmp_path, content))
    assert info.r == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert info.p == (600.5, 0, 322.1, 0, 0, 601.5, 238.9, 0, 0, 0, 1, 0)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"image_width": None}, "image_width is None, a whole number"),
        ({"image_height": "480"}, "image_height is '480'"),
        ({"image_height": 0}, "640x0 pixels"),
        ({"camera_matrix": None}, "camera_matrix is missing"),
        ({"camera_matrix": {"data": [1, 2]}}, r"camera_matrix has 2 numbers, 9 \(3x3\)"),
        ({"camera_matrix": {"data": ["a"] * 9}}, "camera_matrix holds something"),
        ({"camera_matrix": {"data": [float("nan")] * 9}}, "not finite"),
        ({"projection_matrix": {"data": [1] * 9}}, "projection_matrix has 9 numbers, 12"),
        ({"distortion_coefficients": {"data": [0] * 8}}, "plumb_bob has 4 or 5 .* not 8"),
    ],
)
def test_a_bad_calibration_names_file_and_key(tmp_path, change, said):
    path = write(tmp_path, {**CALIBRATION, **change})
    with pytest.raises(ConfigError, match=f"front.yaml: .*{said}"):
        load_camera_info(path)


@pytest.mark.parametrize("text, said", [("a: [1", "is not YAML"), ("3", "not a YAML mapping")])
def test_what_is_no_calibration_is_refused(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        load_camera_info(write(tmp_path, text))


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"/nowhere/front\.yaml cannot be read: No such file"):
        load_camera_info("/nowhere/front.yaml")


def test_an_uncalibrated_camera_has_zeros_at_any_size():
    info = CameraInfo(640, 480).scaled(320, 240)
    assert not info.calibrated
    assert (info.width, info.height) == (320, 240)
    assert set(info.k + info.r + info.p + info.d) == {0.0}


@given(fov=st.floats(1, 179), width=st.integers(2, 4000))
def test_a_pinhole_sees_its_field_of_view(fov, width):
    info = CameraInfo.pinhole(width, 480, fov)
    # The outer edges of the first and last pixel lie half the angle off the axis.
    left = (-0.5 - info.k[2]) / info.k[0]
    right = (width - 0.5 - info.k[2]) / info.k[0]
    assert np.degrees(np.arctan(right) - np.arctan(left)) == pytest.approx(fov)


@pytest.mark.parametrize("fov", [0, 180, -5, float("nan")])
def test_an_impossible_field_of_view_is_refused(fov):
    with pytest.raises(ConfigError, match="it would be above 0 and below 180"):
        CameraInfo.pinhole(640, 480, fov)


def test_scaling_moves_a_point_as_resizing_moves_the_picture(tmp_path):
    info = load_camera_info(write(tmp_path, CALIBRATION))
    point = np.array([0.2, -0.1, 1.0])
    picture = np.zeros((480, 640), np.uint8)
    x, y = (np.array(info.k).reshape(3, 3) @ point)[:2]
    # A soft spot around the projected point, found again by its centre of mass.
    grid_y, grid_x = np.mgrid[0:480, 0:640]
    picture = np.exp(-((grid_x - x) ** 2 + (grid_y - y) ** 2) / 200)
    small = cv2.resize(picture, (320, 160), interpolation=cv2.INTER_AREA)
    grid_y, grid_x = np.mgrid[0:160, 0:320]
    found = np.array([(small * grid_x).sum(), (small * grid_y).sum()]) / small.sum()
    scaled = info.scaled(320, 160)
    expected = (np.array(scaled.k).reshape(3, 3) @ point)[:2]
    assert np.allclose(found, expected, atol=0.01)
    rectified = np.array(info.p).reshape(3, 4) @ [*point, 1.0]
    again = np.array(scaled.p).reshape(3, 4) @ [*point, 1.0]
    assert np.allclose((rectified[:2] + 0.5) * [0.5, 1 / 3] - 0.5, again[:2])
