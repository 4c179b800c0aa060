"""Train the predictor packs, and measure their accuracy."""
