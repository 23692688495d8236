"""How anything is written, resumed, read strictly and traced to where it came from."""
