"""What leaves the house: model cards, exported and quantized networks, and the promises they carry."""
