"""epitaxy."""
