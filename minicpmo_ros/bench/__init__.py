"""Measurements: every one prints a table and can write its figures as JSON."""
