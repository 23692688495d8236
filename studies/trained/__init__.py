"""What the studies that train many networks share: plans, runs, samples, statistics."""
