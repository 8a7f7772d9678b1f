"""Data sets on this disk, and no way to another machine."""

import socket

import numpy as np
import pytest
import torch
from torchvision import datasets

from tests.trainers.data.data_files import cifar_files, md5, mnist_files, picture


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(self, address):
        if self.family != socket.AF_UNIX and address[0] != "127.0.0.1":
            raise AssertionError(f"a test reached for {address}")
        return connect(self, address)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(params=["mnist", "fashion-mnist"])
def mnist(request, tmp_path):
    """Name, data_dir, folder of the files and their bytes, uncompressed."""
    folder = tmp_path / {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[request.param] / "raw"
    folder.mkdir(parents=True)
    files = mnist_files(np.random.default_rng(0))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return request.param, tmp_path, folder, files


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path, monkeypatch):
    """Name, data_dir, the class whose checksums are those of our small files, and the files' bytes."""
    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[request.param]
    files = cifar_files(request.param, np.random.default_rng(0))
    for listing in ("train_list", "test_list"):
        small = [[file, md5(files[file])] for file, _ in getattr(source, listing)]
        monkeypatch.setattr(source, listing, small)
    meta = source.meta["filename"]
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5(files[meta])})
    folder = tmp_path / source.base_folder
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return request.param, tmp_path, source, files


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 5), ("val", 2)):
        for i in range(n):
            picture(tmp_path / part / "n01" / f"{i}.png", rng)
            picture(tmp_path / part / "n02" / f"{i}.JPEG", rng, size=(25, 60))
    return tmp_path


@pytest.fixture
def imagenet(folder):
    meta = ({"n01": ("tench", "Tinca tinca"), "n02": ("goldfish",)}, ["n01", "n02"])
    torch.save(meta, folder / "meta.bin")
    return folder
