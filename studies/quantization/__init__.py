"""What 8 and 4 bits save and cost: size on disk, perplexity, zero-shot accuracy, logits and speed of a network before and after."""
