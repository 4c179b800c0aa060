"""Writer of TFLite files."""
