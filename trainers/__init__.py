"""Learn: rules, conversion, recording and training. The only folder that imports torch.

- ``rules``: what carries the error and how feedback learns, one small file per paper.
- ``layers``: layers whose error travels through B, and the conversion of a network.
- ``config``: settings, schedules, and the network that they build.
- ``observe``: signals, laws and costs of a network on one batch; a recorded run's networks.
- ``record``: the recorder and its parts.
- ``loop``: the training loop of ``wtdiag train``.
- ``data``, ``models``: what there is to learn from and with.
"""
