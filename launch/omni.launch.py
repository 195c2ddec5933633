"""Bring up the stack: `ros2 launch minicpmo_ros omni.launch.py`.

One process with all four nodes by default, so that pictures and sound never leave it; with
use_composition:=false each node is a process of its own and pictures travel as JPEG.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition, UnlessCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import Condition, LaunchDescription

TOGETHER = "stack"  # the executable that holds all four
NODES = ("camera", "mic", "omni", "speaker")
# On the way from one process to another a raw picture costs too much.
APART = {"omni": {"image_transport": "compressed"}}
ARGUMENTS = (
    ("namespace", "", "Namespace of all nodes and topics"),
    ("params_file", "config/omni.yaml", "YAML file with the parameters"),
    ("use_sim_time", "false", "Take time from /clock"),
    ("autostart", "true", "Configure and activate the nodes at once"),
    ("use_composition", "true", "All nodes in one process (false: four processes)"),
    ("use_respawn", "false", "Start a process again when it dies"),
    ("log_level", "info", "debug, info, warn or error"),
)


def arguments() -> list[DeclareLaunchArgument]:
    share = Path(get_package_share_directory("minicpmo_ros"))
    files = {name: str(share / default) for name, default, _ in ARGUMENTS if "file" in name}
    return [
        DeclareLaunchArgument(name, default_value=files.get(name, default), description=text)
        for name, default, text in ARGUMENTS
    ]


def flag(name: str) -> ParameterValue:
    return ParameterValue(LaunchConfiguration(name), value_type=bool)


def process(executable: str, condition: Condition, extra: dict[str, str] | None = None) -> Node:
    common = {"use_sim_time": flag("use_sim_time"), "autostart": flag("autostart")}
    return Node(
        package="minicpmo_ros",
        executable=executable,
        namespace=LaunchConfiguration("namespace"),
        # What stands in the file wins.
        parameters=[{**common, **(extra or {})}, LaunchConfiguration("params_file")],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        respawn=LaunchConfiguration("use_respawn"),
        respawn_delay=2.0,
        output="screen",
        condition=condition,
    )


def generate_launch_description() -> LaunchDescription:
    together = LaunchConfiguration("use_composition")
    return LaunchDescription(
        [
            *arguments(),
            # Default UDP loses a third of raw VGA pictures between processes; this loses none.
            SetEnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA"),
            process(TOGETHER, IfCondition(together)),
            *(process(name, UnlessCondition(together), APART.get(name)) for name in NODES),
        ]
    )
