"""Replay a recording through the real nodes in simulated time:
`ros2 launch minicpmo_ros replay.launch.py bag:=PATH [out:=PATH]`.
"""

from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    table = [
        ("bag", None, "rosbag2 recording to replay"),
        (
            "out",
            "replayed",
            "Bag to write: the inputs with decisions, speech, alerts and playback",
        ),
    ]
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(n, default_value=d, description=t) for n, d, t in table),
            SetEnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA"),
            Node(
                package="minicpmo_ros",
                executable="minicpmo",
                arguments=[
                    "replay",
                    LaunchConfiguration("bag"),
                    "--ros",
                    "--out",
                    LaunchConfiguration("out"),
                ],
                output="screen",
            ),
        ]
    )
