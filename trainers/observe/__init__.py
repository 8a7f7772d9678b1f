"""Observations of a converted network on one batch, as arrays and functions of arrays for the probes.

`tracer` gives the error signals, `laws` the law by which each layer's feedback learns, `attribution` the cost of each
layer's feedback, `rates` the learning rates of a recorded run, `open_run` the network at any recorded step, and
`tensors` arrays of tensors and back.
"""
