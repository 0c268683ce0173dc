"""Readers of structure files."""
