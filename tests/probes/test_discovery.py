"""What installed packages add to a registry by entry points, and what is said of those that cannot be loaded."""

import sys
import threading
import warnings
from textwrap import dedent

import pytest

from wtdiag.probes.discovery import Registry, enter
from wtdiag.probes.errors import InputError

GROUP = "wtdiag.tests"


@pytest.fixture
def registry(monkeypatch):
    """A registry with one entry of its own, as a module that packages import."""

    def check(entry):
        if entry == "bad":
            raise InputError("bad: cannot be used")

    made = Registry("thing", GROUP, decorator="thing", source=lambda entry: OBJECTS[entry], check=check)

    def thing(function):
        OBJECTS[function.__name__] = function
        enter(made, "thing", function.__name__, function.__name__)
        return function

    OBJECTS.clear()
    thing(_own)
    made.open()
    module = type(sys)("things")
    module.thing, module.registry = thing, made
    monkeypatch.setitem(sys.modules, "things", module)
    return made


OBJECTS = {}


def _own():
    pass


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package of one module whose entry points are given."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def of(name, source, **points):
        (tmp_path / f"{name}.py").write_text("from things import registry, thing\n" + dedent(source))
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{point} = {value}" for point, value in points.items()]
        (folder / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))

    yield of
    for added in set(sys.modules) - before:
        del sys.modules[added]


GOOD = "@thing\ndef good(): pass\n"


def test_an_entry_of_a_package_is_there_when_it_is_first_asked_for(registry, install):
    install("mine", GOOD, good="mine:good")
    assert "mine" not in sys.modules
    assert "good" in registry
    assert list(registry) == ["_own", "good"]
    assert (len(registry), registry["good"], registry.get("none")) == (2, "good", None)


def test_a_module_that_was_imported_before_is_not_entered_twice(registry, install):
    install("mine", GOOD, good="mine:good")
    __import__("mine")
    assert list(registry) == ["_own", "good"]


@pytest.mark.parametrize(
    ("source", "value", "message"),
    [
        ("1 / 0", "mine:x", "ZeroDivisionError: division by zero"),
        (GOOD + "1 / 0", "mine:good", "ZeroDivisionError: division by zero"),
        ("import nowhere_to_be_found", "mine:x", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise SystemExit(3)", "mine:x", "SystemExit: 3"),
        ("def f(:", "mine:x", "SyntaxError: invalid syntax (mine.py, line 2)"),
        ("", "absent:x", "ModuleNotFoundError: No module named 'absent'"),
        ("", "mine:x", "AttributeError: module 'mine' has no attribute 'x'"),
        ("class X: pass", "mine:X", "mine:X is not a thing; expected one decorated with @thing"),
        ("@thing\ndef _own(): pass", "mine:_own", "thing: the name '_own' is taken; expected one of its own"),
        ("@thing\ndef bad(): pass", "mine:bad", "bad: cannot be used"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_one_line_and_the_rest_is_there(registry, install, source, value, message):
    install("mine", source, mine=value)
    install("other", "@thing\ndef fine(): pass\n", fine="other:fine")
    with pytest.warns(UserWarning, match=GROUP) as seen:
        assert list(registry) == ["_own", "fine"]
    assert [str(each.message) for each in seen] == [f"{GROUP}: the entry point 'mine' of mine is left out: {message}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(registry) == ["_own", "fine"]  # it is said once


def test_a_warning_that_is_an_error_leaves_the_registry_whole(registry, install):
    install("mine", "1 / 0", mine="mine:x")
    install("other", "@thing\ndef fine(): pass\n", fine="other:fine")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="ZeroDivisionError"):
            list(registry)
    assert list(registry) == ["_own", "fine"]


def test_one_bad_entry_of_a_module_leaves_its_others(registry, install):
    install("mine", GOOD + "@thing\ndef bad(): pass\n", one="mine:bad", two="mine:good")
    with pytest.warns(UserWarning, match="entry point 'one' of mine is left out: bad: cannot be used"):
        assert list(registry) == ["_own", "good"]


def test_a_package_may_read_the_registry_while_it_loads(registry, install):
    install("mine", "names = list(registry)\n" + GOOD, good="mine:good")
    assert list(registry) == ["_own", "good"]
    assert sys.modules["mine"].names == ["_own"]


def test_threads_that_read_at_once_see_the_same(registry, install):
    install("mine", "import time\ntime.sleep(0.05)\n" + GOOD, good="mine:good")
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(list(registry))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [["_own", "good"]] * 4
