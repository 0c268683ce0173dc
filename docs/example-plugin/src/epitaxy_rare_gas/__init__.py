"""A pair potential and Lennard-Jones argon for epitaxy."""
