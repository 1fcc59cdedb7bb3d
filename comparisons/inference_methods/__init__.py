"""The study of inference methods: `study.py`, its scores, tables and pictures."""
