"""Composition features and scikit-learn models on tables of features."""
