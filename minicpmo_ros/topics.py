"""The topics: name, type and quality of service of each, stated once for nodes, bags and docs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """A topic of relative name: a namespace moves it. depth: messages kept for a slow reader."""

    name: str
    type: str
    reliable: bool
    depth: int
    latched: bool = False
    by: str = ""

    @property
    def qos_text(self) -> str:
        words = ["reliable" if self.reliable else "best effort"]
        if self.latched:
            words.append("transient local")
        return ", ".join([*words, str(self.depth)])


# A text to say goes out at once, in pieces of a second or less. The speaker holds ten minutes of
# them, of which none may push another out on the way.
SPEECH_DEPTH = 1000

IMAGE = Topic("image_raw", "sensor_msgs/msg/Image", False, 5, by="camera")
IMAGE_COMPRESSED = Topic(
    "image_raw/compressed", "sensor_msgs/msg/CompressedImage", False, 5, by="camera"
)
CAMERA_INFO = Topic("camera_info", "sensor_msgs/msg/CameraInfo", False, 5, by="camera")
MIC = Topic("audio/mic", "minicpmo_ros/msg/AudioChunk", False, 50, by="mic")
PLAYED = Topic("audio/played", "minicpmo_ros/msg/AudioChunk", False, 50, by="speaker")
SPEECH = Topic("audio/speech", "minicpmo_ros/msg/SpeechChunk", True, SPEECH_DEPTH, by="omni")
DECISION = Topic("decision", "minicpmo_ros/msg/Decision", True, 10, by="omni")
ALERT = Topic("alert", "minicpmo_ros/msg/Alert", True, 10, latched=True, by="omni")
VOICE = Topic("voice", "minicpmo_ros/msg/VoiceActivity", True, 10, by="omni")
STATE = Topic("state", "minicpmo_ros/msg/SessionState", True, 1, latched=True, by="omni")
PLAYBACK = Topic("playback", "minicpmo_ros/msg/Playback", True, 10, by="speaker")

PICTURES = (IMAGE, IMAGE_COMPRESSED)
INPUTS = (*PICTURES, CAMERA_INFO, MIC)
OUTPUTS = (DECISION, SPEECH, ALERT, VOICE, STATE, PLAYBACK, PLAYED)
ALL = (*INPUTS, *OUTPUTS)
