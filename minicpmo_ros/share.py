"""Where the files beside the code are: launch/, config/, engines/, msg/, srv/, action/."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from minicpmo_ros.errors import MinicpmoError

NAME = "minicpmo_ros"


def share_directory() -> Path:
    """The checkout where the code runs from one, else share/minicpmo_ros of its installation.

    A checkout comes first, so that an edit of a configuration counts at once. Installations are
    looked for on AMENT_PREFIX_PATH and in the prefix of this Python. Raises MinicpmoError.
    """
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "package.xml").is_file() and (checkout / "msg").is_dir():
        return checkout
    prefixes = [
        *filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)),
        sys.prefix,
    ]
    for prefix in prefixes:
        share = Path(prefix, "share", NAME)
        if (share / "package.xml").is_file():
            return share
    raise MinicpmoError(
        f"share/{NAME} is in none of {', '.join(prefixes)}: source the workspace's"
        " install/setup.bash, or install the package again"
    )
