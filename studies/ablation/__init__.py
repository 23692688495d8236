"""What does each part of the method do? Sharing, effectiveness, weighting, and wide against deep: each switched, and trained."""
