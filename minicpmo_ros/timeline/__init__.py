"""Units of one second from stamped streams of sound and pictures. A leaf: pure Python and numpy."""
