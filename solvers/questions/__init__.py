"""What a designer asks of a solved problem: prices, alternatives, conflicts, fronts."""
