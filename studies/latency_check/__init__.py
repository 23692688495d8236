"""Do a device file's predictions hold on the machine it was measured on? Predictions, limits and gains, all measured again."""
