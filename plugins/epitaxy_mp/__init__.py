"""Entries from the Materials Project."""
