"""Predictors of nn-Meter 1.0: pickled random forests, imported as predictor packs."""
