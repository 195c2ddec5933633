"""Set-up of a checkout: system packages, virtual environment, ROS 2, packages, interfaces."""
