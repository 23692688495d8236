"""Exact methods of our own: enumeration, dynamic programming and the bounds that it rests on."""
