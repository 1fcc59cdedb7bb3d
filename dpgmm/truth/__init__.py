"""Truth: exact answers for few points, and calibration by simulation for more."""
