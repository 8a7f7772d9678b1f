"""The storage of a sweep: what users see when it cannot be written."""

import resource

import optuna
import pytest

from wtdiag.probes.errors import InputError
from wtdiag.studies.engine.storage import open_storage, sqlite_url


def test_a_full_disk_is_explained_and_loses_nothing(tmp_path):
    file = tmp_path / "trials.db"
    study = optuna.create_study(storage=open_storage(sqlite_url(file)), study_name="fa")
    study.set_user_attr("kept", "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, limits[1]))
    try:
        with pytest.raises(InputError, match=r"^storage: \S*trials.db\S* cannot be written \([^\n]+\)$"):
            study.set_user_attr("more", ["x" * 2000] * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert optuna.load_study(storage=open_storage(sqlite_url(file)), study_name="fa").user_attrs["kept"] == "whole"
    study.set_user_attr("later", "goes on")


def test_a_storage_that_a_full_disk_refuses_from_the_start_is_explained(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"^storage: \S*trials.db\S* cannot be written \([^\n]+\)$"):
            open_storage(sqlite_url(tmp_path / "trials.db"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
