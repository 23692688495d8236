"""A training run that can be stopped and resumed."""
