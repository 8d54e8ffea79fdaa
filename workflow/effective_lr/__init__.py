"""A reproduction of van Laarhoven (2017), L2 Regularization versus Batch and Weight Normalization."""
