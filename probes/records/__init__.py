"""The run directory, read and written in one place.

`schema` names the files and opens a run, `snapshots` and `netcdf` read and write the arrays, `files` moves whole files
into place, and `rundir` makes, extends and rewinds a run directory. Apart from `probes.errors`, this is the only part
of `probes` that `trainers` may import.
"""
