"""The study of starts and restarts: `study.py`, the starts, and what restarts buy."""
