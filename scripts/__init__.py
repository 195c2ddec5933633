"""Programs around the package: set-up, and the template of the node executables."""
