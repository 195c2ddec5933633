"""The one place where OpenCV is imported."""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType

from minicpmo_ros.errors import DeviceError


@cache
def opencv() -> ModuleType:
    """cv2, imported on first use; raises `DeviceError` naming the package where it is missing.

    OpenCV's thread count belongs to the whole process. Nothing here works on a picture for longer
    than a few milliseconds, and at VGA one thread was as fast as two, while a pool that wakes every
    core disturbs sound callbacks and the brain's own threads: so it is set to one, unless the
    user chose with OpenCV's own OPENCV_FOR_THREADS_NUM.
    """
    try:
        import cv2
    except ImportError as error:
        raise DeviceError(
            f"pictures need OpenCV, which cannot be imported ({error}): install it with "
            "'pip install opencv-python-headless', or 'apt install python3-opencv' on a robot"
        ) from error
    if not os.environ.get("OPENCV_FOR_THREADS_NUM"):
        cv2.setNumThreads(1)
    return cv2
