"""Reader and writer of nn-Meter IR, and of the bench dataset that is made of it."""
