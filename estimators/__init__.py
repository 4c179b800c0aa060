"""Training and latency estimates for the candidates of an architecture search."""
