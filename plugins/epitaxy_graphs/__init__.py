"""Graph networks."""
