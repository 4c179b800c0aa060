"""Reader of frozen TensorFlow graphs, without TensorFlow."""
