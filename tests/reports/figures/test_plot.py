"""Figures that stand alone, and the gallery that shows them."""

import inspect

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes

import wtdiag
from tests.reports.runs import analysis
from wtdiag.probes.errors import InputError
from wtdiag.reports import gallery
from wtdiag.reports.figures import plot, sized

DATA = analysis(4, 8)
CALLS = {
    "attribution": (DATA, "attribution_angle"),
    "compare": ([DATA, analysis(4, 8, seed=1)], "weight_angle"),
    "error_profile": (DATA,),
    "size_profile": (DATA,),
    "heatmap": (DATA, "weight_gain"),
    "layer_curves": (DATA, "weight_angle"),
    "product_law": (DATA,),
    "spectrum": (DATA, "fc2"),
    "stability": (DATA,),
}


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    pyplot.close("all")


def test_every_public_figure_is_called_here_and_is_wtdiags():
    assert sorted(plot.__all__) == sorted(CALLS) == sorted(gallery.figures())
    assert wtdiag.plot is plot


@pytest.mark.parametrize("name", CALLS)
def test_figures_draw_on_given_axes_or_on_their_own(name):
    draw = getattr(plot, name)
    own = draw(*CALLS[name])
    assert pyplot.get_fignums() == [own.figure.number]  # on screen, where there is one
    _, (left, right) = pyplot.subplots(1, 2)
    assert draw(*CALLS[name], ax=right) is right
    assert isinstance(own, Axes)
    assert not left.has_data()
    assert len(pyplot.get_fignums()) == 2
    right.figure.canvas.draw()


@pytest.mark.parametrize("name", CALLS)
def test_what_is_optional_is_named(name):
    *_, ax = inspect.signature(getattr(plot, name)).parameters.values()
    assert (ax.name, ax.kind) == ("ax", inspect.Parameter.KEYWORD_ONLY)


@pytest.mark.parametrize("name", sorted(set(CALLS) & set(sized.__all__)))
def test_reports_show_the_same_figures(name):
    panel = getattr(sized, name)(*CALLS[name])
    own = getattr(plot, name)(*CALLS[name])
    assert pyplot.get_fignums() == [own.figure.number]  # a report opens no window
    for one, other in zip(panel.axes[0].lines, own.lines, strict=True):
        np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())


def test_a_users_own_style_is_kept():
    with mpl.rc_context({"font.size": 17, "text.color": "red"}):
        ax = plot.heatmap(DATA, "weight_angle", ax=pyplot.figure().subplots())
        assert ax.title.get_color() == "red"
        plot.heatmap(DATA, "weight_angle")
        assert mpl.rcParams["font.size"] == 17


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.parametrize("name", ["heatmap", "layer_curves", "spectrum"])
def test_a_dollar_in_a_name_is_a_dollar_on_any_axes(name):
    odd = analysis(2, 4, names=[r"$\frac$", "fc"])
    arguments = (r"$\frac$",) if name == "spectrum" else ("weight_angle",)
    ax = getattr(plot, name)(odd, *arguments, ax=pyplot.figure().subplots())
    ax.figure.canvas.draw()  # as mathematics it would not parse


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: plot.heatmap(DATA, "weight_angel"), r"^measure: .weight_angel. .* did you mean .weight_angle."),
        (lambda: plot.heatmap(DATA, "log_norm_ratio_sum"), r"^measure: .log_norm_ratio_sum. is over \(step\); .*layer"),
        (lambda: plot.stability(DATA[["weight_angle"]]), r"^measure: 'step_size_number' .* Choices: weight_angle$"),
        (lambda: plot.layer_curves(DATA, "weight_angle", predicted="none"), r"^measure: 'none' is not known"),
        (lambda: plot.product_law(DATA.drop_vars("error_angle_product")), r"^measure: 'error_angle_product'"),
        (lambda: plot.attribution(DATA, "weight_angle"), r"^measure: .* Choices: attribution_angle, attribution_loss$"),
        (lambda: plot.error_profile(DATA, step=-7), r"^step: '-7' is not known"),
        (lambda: plot.spectrum(DATA, "fc9"), r"^layer: 'fc9' is not known; did you mean 'fc\d'\? Choices: fc1, fc2"),
        (lambda: plot.spectrum(DATA, 4), r"^layer: 4 is not known. Choices: fc1, fc2, fc3, fc4, or 0 to 3$"),
        (lambda: plot.spectrum(DATA, "fc1", steps=[-1]), r"^steps: '-1' is not known"),
        (lambda: plot.spectrum(DATA, "fc1", steps=[]), r"^steps: none given"),
        (lambda: plot.compare([], "weight_angle"), r"^analyses: none given"),
        (lambda: plot.compare(DATA, "weight_angle"), r"^analyses: got a single Dataset; expected a list of them"),
        (lambda: plot.compare("runs/x", "weight_angle"), r"^analysis: 'r' is not an analysis; expected the Dataset"),
        (lambda: plot.heatmap("x", "weight_angle"), r"^analysis: 'x' is not an analysis; expected the Dataset that"),
        (lambda: plot.size_profile(None), r"^analysis: None is not an analysis"),
        (lambda: plot.spectrum("x", 0), r"^analysis: 'x' is not an analysis"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call()
    assert not pyplot.get_fignums()  # and leaves no empty figure


def test_compare_averages_over_runs_of_a_rule():
    runs = [analysis(3, 5, seed=seed).assign_attrs(rule=rule) for seed, rule in enumerate(("fa", "fa", "kp"))]
    ax = plot.compare(runs, "weight_angle")
    means = [run.weight_angle[:, 1:].mean("layer").values for run in runs]  # the first layer carries no error
    np.testing.assert_allclose(ax.lines[0].get_ydata(), (means[0] + means[1]) / 2)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), means[2])
    (band,) = ax.collections
    low, high = (edge(band.get_paths()[0].vertices[:, 1]) for edge in (np.min, np.max))
    mean, sd = (means[0] + means[1]) / 2, abs(means[0] - means[1]) / 2
    np.testing.assert_allclose([low, high], [(mean - sd).min(), (mean + sd).max()])


def test_gains_multiply_from_the_output_down():
    data = analysis(4, 3)
    data.norm_ratio[-1] = [7.0, 2.0, 3.0, 0.5]
    lines = {line.get_gid(): line.get_xdata() for line in plot.size_profile(data).lines}
    np.testing.assert_allclose(lines["norm_ratio"], [np.nan, 2, 3, 0.5])  # the first layer sends nothing down
    np.testing.assert_allclose(lines["norm_ratio_product"], [np.nan, 3, 1.5, 0.5])
    np.testing.assert_array_equal(lines["error_norm_ratio"], data.error_norm_ratio[-1])


def test_every_one_of_many_layers_has_a_colour_of_its_own():
    data = analysis(400, 3, modes=2)
    axes = plot.layer_curves(data, "weight_angle")
    colors = [line.get_color() for line in axes.lines if str(line.get_gid()).startswith("layer-")]
    assert len(colors) == 400
    assert len(set(colors)) >= 256
    pyplot.close(axes.figure)


def test_the_limit_is_drawn_around_the_cells_above_it():
    data = analysis(2, 3)
    data.step_size_number[:] = [[0.5, 0.5], [2.0, 0.5], [2.0, np.nan]]
    ax = plot.heatmap(data, "step_size_number")
    (border,) = (each for each in ax.collections if type(each).__name__ == "LineCollection")
    got = {tuple(map(tuple, segment)) for segment in border.get_segments()}
    low, middle, last = *((data.step.values[1:] + data.step.values[:-1]) / 2), ax.get_xlim()[1]
    assert got == {((low, -0.5), (low, 0.5)), ((low, 0.5), (middle, 0.5)), ((middle, 0.5), (last, 0.5))}


def test_the_gallery_shows_every_figure_as_its_example_draws_it():
    written = (gallery.FOLDER / "gallery.md").read_text(encoding="utf-8")
    assert written == gallery.page()  # else: python -m wtdiag.reports.gallery
    for name, function in gallery.figures().items():
        assert f"plot.{name}(" in gallery.code(function)
        assert f"](gallery/{name}.png)" in written
        picture = pyplot.imread(gallery.FOLDER / "gallery" / f"{name}.png")
        assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20  # not a blank
    assert sum(file.stat().st_size for file in (gallery.FOLDER / "gallery").iterdir()) < 1.5e6
