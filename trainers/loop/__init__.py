"""The training loop of ``wtdiag train``.

`launch` reads which runs are meant, `fit` trains one, `step` takes a step with the `learner`'s optimisers, `resume`
continues a stopped run, `progress` shows several, and `cost` estimates what a run costs. On several devices, `elastic`
starts the processes, `processes` lets them meet, and `distributed` shares the work among them.
"""
