"""The folder of a study, sweep or transfer, in which one process works at a time."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wtdiag.probes.errors import InputError, check_path
from wtdiag.probes.records import rundir
from wtdiag.probes.records.schema import read_json, write_json


class PartFolder:
    """The folder of one part of a study.

    Parameters
    ----------
    path
        The folder; it need not exist.
    kind
        Kind of the part: "study", "sweep" or "transfer".
    file
        Name of the JSON file that marks the folder and records what the part was made with.
    advice
        Advice in the error that is raised while another process works in the folder.

    Examples
    --------
    >>> import tempfile
    >>> folder = PartFolder(Path(tempfile.mkdtemp(), "lr"), "sweep", "sweep.json")
    >>> folder.record() is None
    True
    >>> folder.hold({"trials": 3})
    >>> folder.record()
    {'trials': 3}
    >>> folder.close()
    """

    def __init__(self, path: Path, kind: str, file: str, advice: str = "") -> None:
        check_path("out", path)
        self.path, self._kind, self._file, self._advice = path, kind, file, advice
        self._held: weakref.finalize[[], PartFolder] | None = None

    @property
    def held(self) -> bool:
        """Whether this process holds the folder."""
        return self._held is not None

    def record(self) -> dict[str, Any] | None:
        """Return what the part in the folder was made with; None if the folder is new or empty.

        Raises
        ------
        InputError
            If the folder holds something else.
        """
        if (self.path / self._file).exists():
            return read_json(self.path / self._file)
        if self.path.exists() and (
            not self.path.is_dir() or any(not inside.name.startswith(".") for inside in self.path.iterdir())
        ):
            raise InputError(f"out: {self.path} holds something other than a {self._kind}; choose another folder")
        return None

    def hold(self, record: Mapping[str, Any]) -> None:
        """Keep other processes out until `close` or the end of this one, and record what the part is made with.

        Raises
        ------
        InputError
            If another process works in the folder, or the folder cannot be created.
        """
        if self.held:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"out: {self.path} cannot be made ({error.strerror})") from None
        try:
            held = rundir.Hold(self.path)
        except InputError:
            raise InputError(f"out: another process works in {self.path}{self._advice}") from None
        self._held = weakref.finalize(self, held.release)
        write_json(self.path / self._file, dict(record))

    def close(self) -> None:
        """Release the folder for other processes."""
        if self._held is not None:
            self._held()
            self._held = None
