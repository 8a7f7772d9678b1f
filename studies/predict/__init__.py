"""Predictions of stability: `boundary` before a training, `live_stability` during it; the `pruner` stops trials by them."""
