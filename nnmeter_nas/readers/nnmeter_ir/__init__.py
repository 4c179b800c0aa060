"""Reader and writer of nn-Meter IR, and reader of the bench dataset, whose models are in nn-Meter IR."""
