"""Predictions of stability before and during a training, and the pruner that stops trials by them."""
