"""A small drawn world: things in colours that come, move and go, seen by a changeable camera."""
