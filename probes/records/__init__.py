"""The run directory, read and written in one place.

`schema` names the files and opens a run, `config` declares the settings, `snapshots`, `arrays` and `netcdf` hold the
arrays, `rows` the records in JSON, `files` opens, checks and moves files, and `rundir` makes, extends and rewinds a
run directory.
"""
