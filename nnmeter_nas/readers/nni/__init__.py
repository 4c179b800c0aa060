"""Reader of NNI's graph IR, of 2.10.1 and 3.0."""
