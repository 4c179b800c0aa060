"""Reader of torch modules."""
