"""Latencies of whole transformers that others measured, beside a model that adds up over layers: those of HAT, and the paper's
nine."""
