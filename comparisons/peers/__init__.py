"""Methods of other libraries, a file each, and the study of how long the same work takes there: `study.py`."""
