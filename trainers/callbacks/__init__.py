"""Recording and logging in the training loops that people use.

`hook` is called once for each step of a plain loop; `for_lightning`, `for_transformers` and `for_skorch` call it from
the loops of these libraries, which are extras and are imported by these three modules alone, and `probe_examples` makes
their hook and its probe batch. `live` holds the few measures that are cheap enough for a running training, and
`loggers` send them to TensorBoard, Weights & Biases and MLflow.
"""
