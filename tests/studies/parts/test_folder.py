"""The folder of a part: known by its file, held by one process at a time."""

import pytest

from wtdiag.probes.errors import InputError
from wtdiag.studies.parts.folder import PartFolder


def test_holds_a_new_folder_until_it_is_closed(tmp_path):
    first, second = (PartFolder(tmp_path / "deep" / "lr", "sweep", "sweep.json", "; wait") for _ in range(2))
    assert first.record() is None
    first.hold({"trials": 3})
    first.hold({"trials": 3})
    with pytest.raises(InputError, match=r"^out: another process works in .*lr; wait$"):
        second.hold({"trials": 4})
    assert first.record() == {"trials": 3}
    first.close()
    second.hold({"trials": 4})
    assert first.record() == {"trials": 4}
    second.close()
    second.close()


@pytest.mark.parametrize("content", ["letter", "study.json"])
def test_refuses_what_another_keeps_there(tmp_path, content):
    (tmp_path / content).write_text("{}")
    with pytest.raises(InputError, match="holds something other than a sweep; choose another folder"):
        PartFolder(tmp_path, "sweep", "sweep.json").record()


def test_hidden_files_are_nothing(tmp_path):
    (tmp_path / ".nfs0001").touch()
    assert PartFolder(tmp_path, "sweep", "sweep.json").record() is None


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="holds something other than a study"):
        PartFolder(tmp_path / "file", "study", "study.json").record()
    with pytest.raises(InputError, match=r"cannot be made \(Not a directory\)"):
        PartFolder(tmp_path / "file" / "below", "study", "study.json").hold({})
