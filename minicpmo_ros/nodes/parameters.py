"""Every parameter of every node, stated once: the nodes declare them from this table, and the
README's table and config/omni.yaml are written from it. Imports no ROS.
"""

from __future__ import annotations

import difflib

from minicpmo_ros.nodes.local_parameters import LOCAL
from minicpmo_ros.nodes.parameter import Parameter, Value

P = Parameter

COMMON = (P("diagnostics_hz", 1.0, "Rate of the messages on /diagnostics.", "Hz", 0.1, 10.0),)

CAMERA = (
    P(
        "source",
        "v4l2:0",
        "Where pictures come from: v4l2:INDEX or v4l2:/dev/videoN, file:PATH (a video), "
        "folder:PATH (pictures in name order), or synthetic (a rendered scene).",
    ),
    P(
        "width",
        640,
        "Width asked of the device and of the synthetic scene.",
        "pixels",
        16,
        8192,
    ),
    P(
        "height",
        480,
        "Height asked of the device and of the synthetic scene.",
        "pixels",
        16,
        8192,
    ),
    P("rate_hz", 10.0, "Pictures a second.", "Hz", 0.1, 120.0),
    P("loop", False, "Begin again at the end of a file or folder."),
    P("frame_id", "camera", "frame_id of the pictures."),
    P(
        "camera_info",
        "",
        "Calibration file (YAML of camera_calibration); empty: uncalibrated.",
    ),
    P("jpeg_quality", 85, "Quality of image_raw/compressed.", "", 10, 100),
    *COMMON,
)

MIC = (
    P(
        "source",
        "device",
        "Where sound comes from: device, file:PATH (wav, flac or ogg), or silence.",
    ),
    P(
        "device",
        "",
        "Input device: its name, part of it, or its index; empty: the default one.",
    ),
    P("chunk_ms", 100, "Length of a chunk.", "ms", 10, 1000),
    P("loop", False, "Begin again at the end of a file."),
    P("frame_id", "microphone", "frame_id of the sound."),
    P(
        "latency_ms",
        40,
        "Sound that the device holds, 0 for its own default. More when diagnostics count sound "
        "lost in the device: the process may then be late by as much.",
        "ms",
        0,
        1000,
    ),
    P(
        "latency_correction_ms",
        0.0,
        "Added to the capture time that the device reports.",
        "ms",
        -1000.0,
        1000.0,
    ),
    P(
        "echo_cancellation",
        "on",
        "Remove the robot's own voice: on (in software, from audio/played), off, or device "
        "(the sound device does it).",
        choices=("on", "off", "device"),
    ),
    P(
        "noise_suppression",
        True,
        "Suppress steady noise, in every mode of echo_cancellation; delays sound by 6 ms.",
    ),
    P(
        "echo_delay_ms",
        0,
        "How much later than its stamps say the played sound reaches the microphone, at the least.",
        "ms",
        -200,
        500,
    ),
    *COMMON,
)

OMNI = (
    P(
        "brain",
        "local",
        "What decides: reflex (no model) or local (MiniCPM-o on this machine, the small one if no "
        "other is named).",
        choices=("reflex", "local"),
    ),
    P(
        "mode",
        "duplex",
        "How the brain converses.",
        choices=("duplex", "streaming", "chat"),
    ),
    P("prompt", "", "Instructions to the brain; empty: its own."),
    P("language", "en", "Language of the conversation, as a BCP-47 tag."),
    P("seed", 0, "Seed of whatever is random in the brain.", "", 0, 2**31 - 1),
    P(
        "image_transport",
        "raw",
        "Pictures to subscribe to: raw (same process), compressed (other processes) or none.",
        choices=("raw", "compressed", "none"),
        launched=True,
    ),
    P(
        "late_ms",
        80,
        "How long a unit waits for sound that is on its way.",
        "ms",
        0,
        1000,
    ),
    P(
        "jitter_ms",
        20,
        "Stamps this close to the end of the last chunk follow it.",
        "ms",
        0,
        200,
    ),
    P(
        "lost_ms",
        1000,
        "Without data for so long, a stream counts as lost.",
        "ms",
        100,
        60000,
    ),
    P("pictures_per_unit", 1, "Newest pictures that a unit takes.", "", 0, 32),
    P(
        "barge_in_ms",
        -1,
        "Voice over the robot's speech for so long stops it; 0: never; -1: 200 with the brain "
        "reflex, else 800, longer than a 'mhm', which a model hears without being stopped.",
        "ms",
        -1,
        5000,
        live=True,
    ),
    P(
        "playback_delay_ms",
        0,
        "From a unit's end to the first sample of speech.",
        "ms",
        0,
        5000,
    ),
    P(
        "voice_detector",
        "auto",
        "Finds speech in sound: silero (a small network), energy, or auto (silero if installed).",
        choices=("auto", "silero", "energy"),
    ),
    P("voice", "en-us", "espeak-ng voice of the robot."),
    P("voice_rate_wpm", 170, "Speed of that voice.", "words/min", 80, 450),
    P(
        "spoken_severity",
        "warning",
        "Lowest severity of alerts that are also spoken.",
        choices=("info", "notice", "warning", "critical", "never"),
    ),
    P(
        "brain_backlog",
        3,
        "Units that may wait for the brain before the next is skipped.",
        "",
        1,
        60,
    ),
    P(
        "publish_timings",
        True,
        "Put wall times into Decision; off for replay to the same bytes.",
    ),
    *LOCAL,
    *COMMON,
)

SPEAKER = (
    P(
        "sink",
        "device",
        "Where speech goes: device, clock (no sound, but paced as if) or file:PATH (a wav).",
    ),
    P(
        "device",
        "",
        "Output device: its name, part of it, or its index; empty: the default one.",
    ),
    P(
        "block_ms",
        10,
        "Block asked of the device; an interruption takes one to be silent.",
        "ms",
        5,
        100,
    ),
    P(
        "latency_ms",
        30,
        "Sound that the device holds, 0 for its own default; an interruption is heard so much "
        "later. More when diagnostics count blocks too late.",
        "ms",
        0,
        1000,
    ),
    P("frame_id", "speaker", "frame_id of audio/played."),
    P(
        "latency_correction_ms",
        0.0,
        "Added to the time at which the device says a sample sounds.",
        "ms",
        -1000.0,
        1000.0,
    ),
    *COMMON,
)

TABLE: dict[str, tuple[Parameter, ...]] = {
    "camera": CAMERA,
    "mic": MIC,
    "omni": OMNI,
    "speaker": SPEAKER,
}

# Parameters that rclpy itself understands and that may stand in any YAML file.
BUILT_IN = ("use_sim_time", "start_type_description_service", "autostart")


def unknown(node: str, names: list[str]) -> str:
    """What is wrong with the names given to a node; empty when all are known."""
    known = [p.name for p in TABLE[node]]
    wrong = [
        name
        for name in names
        if name not in known and name not in BUILT_IN and not name.startswith("qos_overrides.")
    ]
    if not wrong:
        return ""
    lines = []
    for name in wrong:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        lines.append(f"'{name}'{hint}")
    return f"unknown parameter {', '.join(lines)}; {node} has: {', '.join(known)}"


def markdown() -> str:
    """The README's table."""
    lines = []
    for node, parameters in TABLE.items():
        lines += [
            f"**{node}**",
            "",
            "| parameter | default | range | unit | meaning |",
            "|---|---|---|---|---|",
        ]
        for p in parameters:
            text = str(p.default).lower() if isinstance(p.default, bool) else str(p.default)
            default = f"`{text}`" if text else "(empty)"
            meaning = p.description + (" *(can change live)*" if p.live else "")
            lines.append(f"| `{p.name}` | {default} | {p.range_text} | {p.unit} | {meaning} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def yaml_text() -> str:
    """The text of config/omni.yaml: every parameter with its default and meaning."""
    lines = [
        "# Parameters of the four nodes with their defaults; written by `minicpmo params --yaml`.",
        "# Give your own file to the launch file: params_file:=/path/to/file.yaml",
        "",
    ]
    for node, parameters in TABLE.items():
        lines += [f"/**/{node}:", "  ros__parameters:"]
        for p in parameters:
            extra = "; ".join(x for x in (p.range_text, p.unit) if x)
            lines.append(f"    # {p.description}" + (f" [{extra}]" if extra else ""))
            own = "# " if p.launched else ""
            lines.append(f"    {own}{p.name}: {_yaml(p.default)}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _yaml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
