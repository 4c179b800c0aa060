"""Training of predictor packs: kernel networks fitted to measured latencies, and their intervals."""
