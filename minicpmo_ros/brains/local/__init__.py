"""The local brain: MiniCPM-o on this machine."""

from minicpmo_ros.brains.local.brain import LocalBrain
from minicpmo_ros.brains.local.config import LocalConfig

__all__ = ["LocalBrain", "LocalConfig"]
