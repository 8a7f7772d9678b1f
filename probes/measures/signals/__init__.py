"""Measures of the signals in the network on one batch: error signals, weight gradients, activations."""
