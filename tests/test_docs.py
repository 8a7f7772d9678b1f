"""What the pages of docs show is what happens; `test_extending` and the tutorials look after the rest."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import wtdiag
from wtdiag.diagnostics.analysis.analyze import write_analysis

ROOT = Path(__file__).parents[1]


def blocks(page):
    """Return the blocks of Python of a page, each with as many lines before it as tell its place in a traceback."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return ["\n" * text[: each.start(1)].count("\n") + each[1] for each in found]


def test_a_loop_of_jax_is_recorded_without_torch_and_explained(tmp_path):
    # In a process of its own: JAX starts threads, after which a fork in this one would warn.
    code = blocks("other-code.md")[0] + "\nimport sys\nassert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    analysis = wtdiag.analyze(tmp_path / "runs" / "jax")
    assert analysis.attrs["rule"] == "fa"
    assert analysis.fixed.all()
    assert analysis.layer.values.tolist() == ["fc1", "fc2"]
    assert analysis.sizes["step"] == 6
    for measure in ("weight_angle", "error_angle_local"):
        angle = analysis[measure].sel(layer="fc2").values
        assert angle[-1] < angle[0], measure
    assert wtdiag.diagnose(tmp_path / "runs" / "jax", analysis)


def test_networks_of_other_code_are_recorded_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("other-code.md")[1], "other-code.md", "exec"), {})
    layers = {path.name: list(wtdiag.open_run(path).snapshot(0).children) for path in (tmp_path / "runs").iterdir()}
    assert layers == {"attribute": ["0", "2"], "named": ["fc2"], "function": ["fc2"]}


@pytest.mark.filterwarnings("default:.*:DeprecationWarning:tensorboard")
def test_a_plain_loop_is_hooked_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("loops.md")[0], "loops.md", "exec"), {})
    run = wtdiag.open_run("runs/hooked")
    assert run.steps.tolist() == [0, 20, 40, 60]
    assert run.metrics.test_accuracy.dropna().tolist() == [0.5]
    assert list(Path("runs/hooked/logs/tensorboard").iterdir())


def test_an_analysis_opens_and_plots_without_wtdiag_and_an_exported_run_opens_by_parts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    plt.close("all")  # xarray draws into the figure that is open
    rng = np.random.default_rng(0)
    shapes = {"fc1": (6, 5), "fc2": (4, 6)}
    back = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    first = {name: np.where(rng.random(shape) < 0.5, 0.0, rng.normal(size=shape)) for name, shape in shapes.items()}
    for step in (0, 10, 20):
        pairs = {name: (first[name] + step * back[name], back[name]) for name in shapes}
        wtdiag.record("runs/ia8", step, pairs, loss=1.0 / (1 + step), event=None if step else "begun")
    write_analysis(wtdiag.analyze("runs/ia8"), Path("runs/ia8/analysis.nc"))
    plots, seaborn, figures, store = blocks("analysis.md")
    namespace = {}
    for block in (plots, seaborn, figures):
        exec(compile(block, "analysis.md", "exec"), namespace)
        namespace["plt"] = plt
        assert plt.get_fignums()
        plt.close("all")
    with pytest.raises(SystemExit) as ended:
        wtdiag.main(["export", "runs/ia8", "--csv", "--parquet", "--zarr"])
    assert not ended.value.code
    exec(compile(store, "analysis.md", "exec"), namespace)
    assert namespace["weights"].step.values.tolist() == [0, 10, 20]
    np.testing.assert_array_equal(namespace["weights"].forward.values[0], first["fc2"])  # its zeros are not missing
    np.testing.assert_array_equal(namespace["weights"].feedback.values, [back["fc2"]] * 3)
    analysis, folder = namespace["analysis"], Path("runs/ia8-export")
    for read, form in ((pd.read_csv, "csv"), (pd.read_parquet, "parquet")):
        table = read(folder / f"analysis.{form}").set_index(["step", "layer"])
        np.testing.assert_allclose(table.loc[(20, "fc2"), "weight_angle"], analysis.weight_angle.values[2, 1])
        spectra = read(folder / f"spectra.{form}").set_index(["step", "layer", "mode"])
        values = spectra.forward_singular_values.loc[20, "fc2"].dropna()
        np.testing.assert_allclose(values, np.linalg.svd(first["fc2"] + 20 * back["fc2"], compute_uv=False))
        metrics = read(folder / f"metrics.{form}")
        assert metrics.step.tolist() == [0, 10, 20]
        assert metrics.event.fillna("").tolist() == ["begun", "", ""]
    assert pd.read_parquet(folder / "analysis.parquet").attrs["weight_angle"] == "degree"
    assert namespace["store"]["metrics"].loss.values.tolist() == metrics.loss.tolist()
    xr.testing.assert_allclose(namespace["store"]["analysis"].dataset.weight_angle.load(), analysis.weight_angle)
