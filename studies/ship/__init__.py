"""Promised, predicted, measured: a design in its runtime, against its budgets; where designs, cost models and networks meet."""
