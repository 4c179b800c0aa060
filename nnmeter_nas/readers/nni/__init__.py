"""Reader of NNI's graph IR, for NNI 2.10.1 and 3.0."""
