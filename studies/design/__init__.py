"""The everyday command: the best design for your budgets, its proof, and what a designer asks next."""
