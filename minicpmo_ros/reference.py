"""The page docs/interfaces.md, written from the interface files and the table of topics."""

from __future__ import annotations

from pathlib import Path

from minicpmo_ros.topics import ALL

SERVICES = (
    ("interrupt", "minicpmo_ros/srv/Interrupt", "omni", "stop the robot's speech now"),
    ("set_mode", "minicpmo_ros/srv/SetMode", "omni", "change how the brain converses"),
    ("set_prompt", "minicpmo_ros/srv/SetPrompt", "omni", "give the brain instructions"),
    ("set_voice", "minicpmo_ros/srv/SetVoice", "omni", "choose the voice that the brain speaks in"),
    ("reset", "std_srvs/srv/Trigger", "omni", "forget the conversation"),
    ("mute", "std_srvs/srv/SetBool", "mic", "send silence instead of sound"),
)
ACTIONS = (
    ("say", "minicpmo_ros/action/Say", "omni", "speak this; done when it was heard"),
    ("chat", "minicpmo_ros/action/Chat", "omni", "a question, answered in streamed text"),
)
PARTS = {
    "msg": ("message",),
    "srv": ("request", "response"),
    "action": ("goal", "result", "feedback"),
}


def topic_rows() -> list[str]:
    """A row of a Markdown table for each topic."""
    return [f"| `{t.name}` | {t.type} | {t.qos_text} | {t.by} |" for t in ALL]


def interfaces_page(folder: Path) -> str:
    """The whole page as Markdown. folder holds msg/, srv/ and action/."""
    lines = [
        "# Topics, services, actions and their types",
        "",
        "Written by `minicpmo interfaces` from the interface files; a test keeps it true.",
        "Names are relative: a namespace moves them all. Times are ROS time.",
        "",
        "| topic | type | QoS | published by |",
        "|---|---|---|---|",
        *topic_rows(),
        "| `/diagnostics` | diagnostic_msgs/msg/DiagnosticArray | reliable, 10 | all, 1 Hz |",
        "",
        "| service or action | type | node | what it does |",
        "|---|---|---|---|",
        *(f"| `{n}` | {t} | {by} | {what} |" for n, t, by, what in (*SERVICES, *ACTIONS)),
    ]
    for kind, parts in PARTS.items():
        for path in sorted((folder / kind).glob(f"*.{kind}")):
            lines += ["", f"## {kind}/{path.stem}", "", *_interface(path.read_text(), parts)]
    return "\n".join(lines) + "\n"


def _interface(text: str, parts: tuple[str, ...]) -> list[str]:
    about: list[str] = []
    tables: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip() == "---":
            tables.append([])
        elif line.startswith("#"):
            about.append(line.lstrip("# "))
        elif line.strip():
            field, _, comment = line.partition("#")
            kind, _, name = field.strip().partition(" ")
            tables[-1].append(f"| {kind} | `{name.strip()}` | {comment.strip()} |")
    lines = [" ".join(about)]
    for part, rows in zip(parts, tables, strict=True):
        lines += ["", f"| {part} | field | meaning |", "|---|---|---|", *rows]
    return lines
