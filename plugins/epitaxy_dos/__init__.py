"""Densities of states: readers, fingerprints, similarity of calculations, data quality."""
