"""nn-Meter 1.0's predictors: pickled random forests, imported as predictor packs."""
