"""Entries from NOMAD."""
