"""Layers whose error travels through B: from the operations of a layer type to the conversion of a whole network.

`operations` (apply, adjoint, outer) stand below the rules; `synapse` holds the autograd functions, `layers` PyTorch's
layer types with feedback weights, `error_path` how the output's error reaches layers far below, `convert` the
conversion.
A new layer type is one class in `operations` and one line in `layers`. Nothing here knows of recording or training.
"""
