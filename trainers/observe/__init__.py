"""What a converted network does on one batch, as arrays and functions of arrays for the probes.

`tracer` gives the error signals, `laws` how each layer's feedback learns, `attribution` what each layer's feedback
costs, `rates` the learning rates of a recorded run, `open_run` the network of any recorded step.
"""
