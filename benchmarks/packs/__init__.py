"""Training the predictor packs, and how good they are."""
