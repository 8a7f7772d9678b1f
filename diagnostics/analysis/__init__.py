"""From snapshots to one labelled dataset.

`survey` measures a snapshot, `analyze` a run, `derive` what follows over steps and layers, `cluster` shares the work,
and `view` is how detectors read the result.
"""
