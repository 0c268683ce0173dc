"""ASE calculators around trained models."""
