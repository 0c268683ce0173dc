"""Metrics, calibration, equations of state and plots."""
