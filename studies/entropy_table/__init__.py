"""The paper's look-up table of entropies beside the closed form: how exact each is, and what an entry costs."""
