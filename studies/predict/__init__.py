"""Predictions of stability: `boundary` before a training, `live_stability` during it; `pruner` stops trials by them."""
