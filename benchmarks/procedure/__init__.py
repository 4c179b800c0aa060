"""nn-Meter's way to make a predictor of a device, beside ``nnmeter-nas build``, on the same budget."""
