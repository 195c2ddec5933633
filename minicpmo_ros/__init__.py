"""MiniCPM-o on ROS 2: robots and cars that see, listen and speak at the same time."""

from pkgutil import extend_path

# The generated interfaces (minicpmo_ros.msg, .srv, .action) may be installed in another folder
# than the code, as with an editable install or a colcon overlay: both are one package.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
