"""The whole front of entropy against costs, every part of it proved, and how near NSGA-II comes to it in what time."""
