"""Checks and repairs of data on their way in."""
