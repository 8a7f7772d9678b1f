"""Files of torch.save from anyone: what torch.load gives, and nothing that runs or costs more than the file holds."""

import os
import pickle
import tracemalloc
import zipfile

import pytest
import torch

from tests.fuzz.damage import Call
from wtdiag.trainers.record import torch_file


def same(first, second):
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


DTYPES = torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool


def test_it_gives_what_torch_gives(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    saved = {
        "step": 3,
        "all": {str(dtype): torch.ones(2, 3, dtype=dtype) for dtype in DTYPES},
        "views": [base.t(), base[1:, ::2], base[0, 0], torch.empty(0, 3), base.expand(1, 4, 6)],
        "model": torch.nn.Linear(3, 2).state_dict(),
        "rest": [None, True, 1.5, "text", (1, 2), float("inf")],
    }
    torch.save(saved, tmp_path / "x.pt")
    assert same(torch_file.load(tmp_path / "x.pt"), torch.load(tmp_path / "x.pt", weights_only=True))


SAID = r"plain data|larger than its storage|refer to each other too often|not callable"


def nested():
    lists = []
    for _ in range(40):
        lists = [lists] * 10
    return lists


@pytest.mark.parametrize(
    "content",
    [
        Call(bytearray, 10**9),
        Call(torch.FloatStorage, 10**8),
        Call(torch.UntypedStorage, 10**9),
        Call(os.getpid),
        torch.zeros(1).expand(10**6, 10**6),
        nested(),
    ],
    ids=["bytes", "storage", "untyped", "code", "stride", "nested"],
)
def test_what_a_checkpoint_never_holds(tmp_path, content):
    torch.save({"step": 0, "model": content}, tmp_path / "x.pt")
    tracemalloc.start()
    try:
        with pytest.raises((pickle.UnpicklingError, ValueError, TypeError), match=SAID):
            torch_file.load(tmp_path / "x.pt")
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def rewritten(path, change, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))


def test_packed_entries_and_far_places(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"step": 0, "model": torch.ones(3)}, path)
    rewritten(path, lambda name, content: bytes(2**24) if "/data/" in name else content, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="an entry is compressed"):
        torch_file.load(path)
    torch.save({"step": 0, "model": torch.ones(3)}, path)
    far = b"\x80\x02}r\xff\xff\xff\x7f."
    rewritten(path, lambda name, content: far if name.endswith("data.pkl") else content)
    with pytest.raises(ValueError, match="out of bounds"):
        torch_file.load(path)
