"""Layers whose error travels through B: from the operations of a layer type to the conversion of a whole network.

`operations` holds the operations in which rules are written (apply, adjoint, outer), `synapse` the autograd functions,
`layers` PyTorch's layer types with feedback weights, `error_path` the path of the output error to the layers of direct
rules, `convert` the conversion, `place` the order of the layers and `watch` the warning about layers that keep
backprop. A new layer type is a class in `layers` with ``forward`` and ``_operation`` and an entry in ``SYNAPTIC``. If
no class in `operations` serves it, it needs one there too. Nothing here depends on recording or training.
"""
