"""Every test run has ROS to itself: a domain of its own, seen on this machine alone."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import settings

# A slow machine is no fault of the code: no test fails for the time that an example took.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

# Domains above 101 collide with the ephemeral ports of Linux.
DOMAINS = 100


def own_domain(environment: dict[str, str], process: int, parent: int) -> int:
    """ROS_DOMAIN_ID for this process: workers of one run and runs side by side do not meet."""
    worker = environment.get("PYTEST_XDIST_WORKER", "")
    if worker.startswith("gw"):
        return 1 + (parent + int(worker[2:]) + 1) % DOMAINS
    return 1 + process % DOMAINS


# Before anything imports rclpy; processes that tests start inherit it.
os.environ["ROS_DOMAIN_ID"] = str(own_domain(dict(os.environ), os.getpid(), os.getppid()))
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
else:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
# Small matrices, on cores that are shared: torch's threads would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("ROS_LOG_DIR", str(Path(__file__).resolve().parents[1] / "out" / "ros_log"))
