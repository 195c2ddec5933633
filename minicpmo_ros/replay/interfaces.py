"""Our message types for `rosbags`, which knows the types of ROS itself but not ours.

They are read from the .msg files, so that a bag carries the very definitions that the nodes were
built from.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minicpmo_ros.errors import InputError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

log = logging.getLogger(__name__)

PACKAGE = "minicpmo_ros"


def interface_folder() -> Path:
    """The folder that holds msg/, srv/ and action/.

    A checkout's own, as it fits the code that runs; else share/minicpmo_ros of the installation.
    Raises `InputError` that lists where they were looked for.
    """
    candidates = [Path(__file__).resolve().parents[2]]
    try:
        from ament_index_python.packages import get_package_share_directory

        candidates.append(Path(get_package_share_directory(PACKAGE)))
    except (ImportError, LookupError, OSError) as error:
        log.debug("no ament index, or minicpmo_ros is not in it: %s", error)
    candidates.append(Path(sys.prefix, "share", PACKAGE))
    for folder in candidates:
        if (folder / "msg" / "AudioChunk.msg").is_file():
            return folder
    raise InputError(
        "the interfaces of minicpmo_ros (msg/AudioChunk.msg ...) are not in "
        + ", ".join(str(folder) for folder in candidates)
        + ": install the package again, or source its workspace"
    )


@cache
def typestore() -> Typestore:
    """Types of ROS 2 (those we use are the same from Humble to Kilted) and of this package.

    Raises `InputError` where rosbags is missing.
    """
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise InputError(f"bags need rosbags ({error}): pip install rosbags") from error
    store = get_typestore(Stores.ROS2_HUMBLE)
    types: dict[str, Any] = {}
    for path in sorted((interface_folder() / "msg").glob("*.msg")):
        types.update(get_types_from_msg(path.read_text("utf-8"), f"{PACKAGE}/msg/{path.stem}"))
    store.register(types)
    return store


class BagTypes:
    """Makes messages of rosbags' types: the `Types` of `minicpmo_ros.wire`."""

    def __init__(self) -> None:
        self._types = typestore().types

    def new(self, name: str, /, **fields: Any) -> Any:
        """A message of the type, e.g. "std_msgs/msg/Header"."""
        return self._types[name](**fields)

    def int16(self, samples: np.ndarray) -> np.ndarray:
        """What an int16[] field takes: int16 [n] without gaps."""
        return np.ascontiguousarray(samples, dtype=np.int16)
