"""Does a device file keep its word on the machine it was measured on? Predictions, limits and gains, all measured anew."""
