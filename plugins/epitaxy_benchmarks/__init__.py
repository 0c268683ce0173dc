"""Data computed or curated by the project, and public benchmark sets."""
