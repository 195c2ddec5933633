"""The ROS nodes: glue between topics and the rooms. The only room that imports rclpy at large."""
