"""Swapping cost models: how the best design moves when the same problem is priced by another model, or for another device."""
