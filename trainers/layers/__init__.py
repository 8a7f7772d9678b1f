"""Layers whose error travels through B: from the operations of a layer type to the conversion of a whole network.

`operations` holds the operations in which rules are written (apply, adjoint, outer), `synapse` the autograd functions,
`synaptic` the mixin of converted layers, `matrices` the modules with several weights, `conversions` the registry of
layer types, `types` those that wtdiag knows, `error_path` the path of the output error to the layers of direct rules,
`convert` the conversion, `revert` the way back, `place` the order of the layers and `watch` the warning about layers
that keep backprop. A new layer type is a class in a file of `types`, declared by `converts`. If no class in
`operations` serves it, it needs one there too. Nothing here depends on recording or training.
"""
