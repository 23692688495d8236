"""What exact methods need for their proofs: instances times solvers, side by side; and whole fronts, method by method."""
