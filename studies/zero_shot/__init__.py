"""The paper's tables 2 and 3 as one table, and beside its rows the same measured here for whatever models are named."""
