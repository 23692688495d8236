"""From text to sequences of tokens."""
