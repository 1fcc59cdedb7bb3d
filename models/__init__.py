"""What is believed: one posterior per file, stated in plain JAX and as a NumPyro program."""
