"""AtomSets: small networks on sets of atoms or elements, and on the features of a parent."""
