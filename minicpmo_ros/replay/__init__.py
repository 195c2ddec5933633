"""Recordings: bags in and out, deterministic replay, and the timeline report."""
