"""What decides: the reflex brain, and the session that feeds any brain with units."""
