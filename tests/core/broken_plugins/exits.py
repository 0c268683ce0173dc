"""Ends the program on import."""

raise SystemExit(3)
