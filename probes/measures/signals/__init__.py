"""Measures of what goes through the network on one batch: error signals, weight gradients, activations."""
