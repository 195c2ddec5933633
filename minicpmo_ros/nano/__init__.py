"""Nano: a checkpoint of the same architecture, small enough to ship.

How it is trained, on a world made by code, and measured.
"""
