"""Searches that find designs and prove nothing."""
