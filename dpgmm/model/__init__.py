"""A posterior: a model bound to data, loaded by name or path, and the programs compiled for it."""
