"""What is asked: one question per file. `dpgmm study NAME` runs it."""
