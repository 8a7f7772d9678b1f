"""Recording a network while any loop trains it: users call `recorder`, and the other modules are its parts.

`staging` copies weights aside, `writer` writes them in the background, `snapshot_plan` and `spikes` say when,
`checkpoint` and `torch_file` hold the state to resume from, `provenance` what made the run, and `arguments` checks.
`foreign_layers` reads networks that other code converted, and `biotorch` knows those of that library.
"""
