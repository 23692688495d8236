"""What the notebooks show: figures and tables, named after what they teach, and teaching solvers."""
