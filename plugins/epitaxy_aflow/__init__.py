"""Entries from AFLOW."""
