"""Where datasets rest."""
