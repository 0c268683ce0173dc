"""Entries from OPTIMADE."""
