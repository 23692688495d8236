"""How good a trained network is: perplexity and zero-shot accuracy."""
