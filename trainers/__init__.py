"""Training: rules, conversion, recording and the training loop. The only folder that imports torch.

- ``rules``: how the error is carried and how feedback learns, one small file per paper.
- ``layers``: layers whose error travels through B, and the conversion of a network.
- ``config``: settings, schedules, and the network that they build.
- ``observe``: signals, laws and costs of a network on one batch, and the networks of a recorded run.
- ``record``: the recorder and its parts.
- ``loop``: the training loop of ``wtdiag train``.
- ``data``, ``models``: the data sets and the models.
"""
