"""The declarative program, and the engines that solve it."""
