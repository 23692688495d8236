"""Experiments, a folder each: `python -m studies.<name>`."""
