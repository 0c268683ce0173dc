"""Periodic neighbor lists and packed batches."""
