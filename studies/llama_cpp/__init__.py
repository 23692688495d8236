"""Designs in llama.cpp: whether it computes what PyTorch does, and how fast designs are there beside a published model."""
