"""Readers of densities of states, a module per format."""
