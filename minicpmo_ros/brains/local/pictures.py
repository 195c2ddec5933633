"""What a unit holds, as the network takes it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import Picture


def as_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """int16 samples in -1..1; raises InputError for other than int16 [samples]."""
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise InputError(
            f"sound has shape {samples.shape} of {samples.dtype}; int16 [samples] is needed"
        )
    return samples.astype(np.float32) / np.float32(32768)


def readable(pictures: tuple[Picture, ...]) -> tuple[list[Shown], str]:
    """The pictures that can be decoded, and why the first of the others cannot."""
    shown, problem = [], ""
    for picture in pictures:
        try:
            shown.append(Shown(picture.stamp_ns, picture.rgb()))
        except InputError as error:
            problem = problem or str(error)
    return shown, problem
