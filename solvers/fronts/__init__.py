"""Methods that find whole fronts at once, instead of one point a solve."""
