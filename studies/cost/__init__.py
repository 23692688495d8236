"""What models cost: parameters, FLOPs, bytes, cache and latency beside each other."""
