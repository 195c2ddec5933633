"""Replay a recording through the real nodes in simulated time:
`ros2 launch minicpmo_ros replay.launch.py bag:=PATH [out:=PATH]`.
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage

from launch import LaunchDescription

ARGUMENTS = (
    ("bag", None, "rosbag2 recording to replay: a folder or an .mcap file"),
    ("out", "replayed", "Bag to write: the inputs with decisions, speech, alerts and playback"),
)


def generate_launch_description() -> LaunchDescription:
    # No Node action: the command holds the nodes in its own process and takes no --ros-args.
    replay = ExecuteProcess(
        cmd=[
            ExecutableInPackage("minicpmo", "minicpmo_ros"),
            "replay",
            LaunchConfiguration("bag"),
            "--ros",
            "--out",
            LaunchConfiguration("out"),
        ],
        name="replay",
        output="screen",
    )
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(n, default_value=d, description=t) for n, d, t in ARGUMENTS),
            SetEnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA"),
            replay,
        ]
    )
