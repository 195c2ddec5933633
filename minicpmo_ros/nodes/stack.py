"""All four nodes in one process: pictures and sound stay within it."""

from __future__ import annotations

from minicpmo_ros.nodes.camera import CameraNode
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.run import run_process
from minicpmo_ros.nodes.speaker import SpeakerNode


def main() -> int:
    # The omni node comes up last, when there is something to hear and somebody to speak through.
    return run_process(CameraNode, MicNode, SpeakerNode, OmniNode)
