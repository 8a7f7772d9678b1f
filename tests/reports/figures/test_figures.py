import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.reports.runs import analysis
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.axes import Event, plain_numbers, spread
from wtdiag.reports.figures.lines import not_drawn, null_bands
from wtdiag.reports.figures.style import BAND, LOOKS, context, look, to_svg

NAMES = ["x" * 80, "<script>alert(1)</script>", "重み $α$", "encoder.layers.11.attention.output.dense", "fc"]
EVENTS = [Event(0, "loss jumped"), Event(340, "diverged")]
DATA = {
    "three layers": analysis(3, 9, log_steps=False),
    "one snapshot": analysis(3, 1),
    "one layer": analysis(1, 5),
    "110 layers": analysis(110, 20, modes=4),
    "odd names": analysis(5, 8, names=NAMES),
    "nothing finite": analysis(4, 6) * np.nan,
    "huge": analysis(4, 6) * 1e300,
}


def panels(data):
    for name in ("weight_angle", "sign_agreement", "norm_ratio", "error_angle"):
        yield sized.heatmap(data, name)
        yield sized.layer_curves(data, name, log=name == "norm_ratio", chance=True)
    yield sized.layer_curves(data, "feedback_spectral_norm", log=True)
    yield sized.layer_curves(data, "weight_gain", log=True, predicted="predicted_gain", events=EVENTS)
    yield sized.heatmap(data, "step_size_number", events=EVENTS)
    yield sized.stability(data, events=EVENTS)
    yield sized.error_profile(data)
    yield sized.product_law(data)
    yield sized.size_profile(data)
    yield sized.attribution(data, "attribution_angle")
    yield sized.spectrum(data, data.sizes["layer"] - 1)


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.parametrize("kind", DATA)
def test_panels_are_legible(kind):
    for panel in panels(DATA[kind]):
        canvas = FigureCanvasAgg(panel)
        with context():
            canvas.draw()
        width, height = canvas.get_width_height()
        words = [text for text in panel.findobj(Text) if text.get_visible() and text.get_text().strip()]
        assert min(text.get_fontsize() for text in words) >= 7
        keys = [each for axes in panel.axes if (each := axes.get_legend())] + panel.legends
        for box in [key.get_window_extent() for key in keys]:
            assert min(box.x0, box.y0) >= -1
            assert box.x1 <= width + 1
            assert box.y1 <= height + 1
        for axes in panel.axes:
            titles = [title for title in (axes.title, axes._left_title) if title.get_text()]
            boxes = [title.get_window_extent() for title in titles]
            for axis in (axes.xaxis, axes.yaxis):
                # Locators give ticks beyond the limits too; those are not drawn.
                low, high = sorted(axis.get_view_interval())
                labels = [
                    tick.label1 if tick.label1.get_visible() else tick.label2
                    for tick in axis.get_major_ticks()
                    if low <= tick.get_loc() <= high
                ]
                boxes += [label.get_window_extent() for label in labels if label.get_text()]
                boxes += [axis.label.get_window_extent()] if axis.label.get_text() else []
            for box in boxes:
                assert box.x0 >= -1
                assert box.y0 >= -1
                assert box.x1 <= width + 1
                assert box.y1 <= height + 1
            for one, other in itertools.combinations(boxes, 2):
                assert not one.padded(-1).overlaps(other.padded(-1)), (kind, axes.title.get_text())


def test_names_are_drawn_as_they_are():
    drawn = to_svg(sized.heatmap(DATA["odd names"], "weight_angle"))
    words = "".join(ElementTree.fromstring(drawn).itertext())  # comments, which hold the names too, are left out
    assert "重み $α$" in words
    assert "<script" in words


def test_every_panel_names_its_measure_and_unit():
    panel = sized.heatmap(DATA["three layers"], "weight_angle")
    assert panel.axes[0].get_title(loc="left") == "Weight angle (°)"
    assert panel.axes[0].get_xlabel() == "training step"
    assert sized.layer_curves(DATA["three layers"], "norm_ratio").axes[0].get_xlabel() == "training step"


def test_heatmap_shows_the_dataset():
    data = DATA["three layers"]
    (drawn,) = sized.heatmap(data, "weight_angle").axes[0].collections
    np.testing.assert_array_equal(drawn.get_array(), data.weight_angle.transpose("layer", "step"))
    assert drawn.norm(90.0) == pytest.approx(0.5)  # chance in the middle of the colours
    ends = drawn.norm([data.weight_angle.min().item(), 90 - 9])
    assert ends[0] == pytest.approx(0)  # the colours reach as far as the values
    narrow = sized.heatmap(data * 0 + 85.5, "weight_angle").axes[0].collections[0]
    assert narrow.norm(85.5) == pytest.approx(0.25)  # and no less than a tenth of what is possible


def test_a_gain_that_is_small_everywhere_has_more_than_one_colour():
    data = analysis(3, 4)
    data.weight_gain[:] = np.geomspace(0.004, 0.06, 12).reshape(4, 3)
    (drawn,) = sized.heatmap(data, "weight_gain").axes[0].collections
    shares = drawn.norm(drawn.get_array())
    assert shares.min() == pytest.approx(0, abs=0.01)
    assert shares.max() > 0.2
    assert drawn.norm(1.0) == 0.5


def test_every_chart_over_steps_has_the_same_axis_with_the_input_at_the_bottom():
    data = DATA["three layers"]
    steps = data.step.values
    line = sized.Curve("a", look("fa"), [0, int(steps[-1])], [0.1, 0.9])
    panels = (
        sized.heatmap(data, "weight_angle"),
        sized.layer_curves(data, "weight_angle"),
        sized.curves([line], title="a", steps=steps),
    )
    first, *others = [(panel.axes[0].get_xscale(), panel.axes[0].get_xlim()) for panel in panels]
    assert all(each == first for each in others)
    for upright in (panels[0], sized.error_profile(data), sized.attribution(data, "attribution_angle")):
        low, high = upright.axes[0].get_ylim()
        assert (low, high) == (-0.5, 2.5)
        assert next(text.get_text() for text in upright.axes[0].get_yticklabels()).startswith("fc1")


def test_one_exploded_layer_does_not_hide_the_ratios_of_others():
    data = analysis(4, 6)
    data.norm_ratio[2, 1] = 1e30
    norm = sized.heatmap(data, "norm_ratio").axes[0].collections[0].norm
    assert norm.vmin == pytest.approx(0.5, abs=0.2)
    assert norm.vmax <= 1e3


def test_ratios_are_coloured_around_one_whatever_their_sign():
    data = analysis(3, 4)
    data.weight_gain[1, 1], data.weight_gain[2, 1] = -2.0, 1.0
    data.step_size_number[:] = [[0.5, 1.0, 2.0]] * 4
    gain = sized.heatmap(data, "weight_gain").axes[0].collections[0]
    assert gain.get_array()[1, 1] == -2.0  # what is drawn is what is there, to be read off
    assert gain.norm(np.array([-2.0, 1.0])).tolist() == [0.0, 0.5]
    s = sized.heatmap(data, "step_size_number").axes[0].collections[0]
    np.testing.assert_allclose(s.norm(s.get_array()[:, 0]), [0, 0.5, 1], atol=1e-12)


def test_events_stand_at_their_steps():
    data = analysis(3, 4, log_steps=False)  # snapshots at 0, 100, 200, 300
    line, diverged = sized.heatmap(data, "weight_angle", events=[Event(100, "a"), Event(250, "diverged")]).axes[0].lines
    assert (line.get_xdata()[0], diverged.get_xdata()[0]) == (100, 250)
    assert line.get_color() != diverged.get_color()


def test_a_map_ends_with_its_last_snapshot_where_the_run_diverged_later():
    data = analysis(3, 4, log_steps=False)  # snapshots at 0, 100, 200, 300
    panel = sized.heatmap(data, "weight_angle", events=[Event(370, "diverged"), Event(10**9, "diverged")])
    edges = panel.axes[0].collections[0].get_coordinates()[0, :, 0]
    assert edges[-1] == pytest.approx(350)
    assert 370 < panel.axes[0].get_xlim()[1] < 400


def test_layers_whose_angle_is_always_zero_do_not_stretch_the_others():
    data = analysis(3, 4)
    data.error_angle[:] = 80.0
    data.error_angle[:, 2] = 0.0
    axes = sized.layer_curves(data, "error_angle", chance=True).axes[0]
    assert [line.get_gid() for line in axes.lines if line.get_gid()] == ["layer-0", "layer-1"]
    assert axes.get_ylim()[0] > 20
    s = sized.heatmap(data, "error_angle").axes[0].collections[0]
    assert s.norm.vmin == 80  # the zeros do not take the range
    data.error_angle[:] = 0.0  # as under backprop
    assert len([line for line in sized.layer_curves(data, "error_angle").axes[0].lines if line.get_gid()]) == 3


def test_another_run_is_drawn_dashed_and_on_the_scale():
    data, other = analysis(3, 4), analysis(3, 4).assign_attrs(rule="fa")
    other.error_angle_total[:] = 120.0
    other.forward_singular_values[:] = 50.0
    profile = sized.error_profile(data, against=other).axes[0]
    spectrum = sized.spectrum(data, 1, against=other).axes[0]
    for axes, label, end, most in (
        (profile, "total, fa", profile.get_xlim()[1], 120),
        (spectrum, "W, fa", spectrum.get_ylim()[1], 50),
    ):
        (line,) = (each for each in axes.lines if each.get_gid() == "reference")
        assert (line.get_linestyle(), line.get_label()) == ("--", label)
        assert end > most


def test_the_smaller_matrix_of_a_spectrum_is_seen():
    data = analysis(3, 4)
    data.forward_singular_values[:] = data.forward_singular_values * 1e12
    low, high = sized.spectrum(data, 1).axes[0].get_ylim()
    assert low < float(data.feedback_singular_values.isel(layer=1).max()) < high


def test_what_is_predicted_is_on_the_axis():
    data = analysis(3, 9)
    data.predicted_gain[:] = 700.0
    data.predicted_gain[:, 0] = 1e9  # of the layer that carries no error nothing is drawn
    axes = sized.layer_curves(data, "weight_gain", log=True, predicted="predicted_gain").axes[0]
    low, high = axes.get_ylim()
    drawn = np.concatenate([line.get_ydata() for line in axes.lines])
    assert low < np.nanmin(drawn) <= np.nanmax(drawn) == 700.0
    assert 700.0 < high < 1e4


def test_what_a_logarithmic_axis_cannot_show_is_left_out():
    data = analysis(3, 9)
    data.weight_gain[:] = 10.0
    data.weight_gain[0, :], data.weight_gain[3, :] = 0.1, -0.5
    line = sized.layer_curves(data, "weight_gain", log=True).axes[0].lines[1]
    np.testing.assert_array_equal(np.isnan(line.get_ydata()), np.arange(9) == 3)
    assert not_drawn(data, {"weight_gain": None}) == " A logarithmic axis leaves out values of 0 or less."
    assert not_drawn(data, {"norm_ratio": None}) == not_drawn(data.weight_gain[4:].to_dataset(), {}) == ""
    data.weight_gain[0, :] = 9.0  # now the axis is linear
    line = sized.layer_curves(data, "weight_gain", log=True).axes[0].lines[1]
    assert line.get_ydata()[3] == -0.5
    assert not_drawn(data, {"weight_gain": None}) == ""
    falling = sized.Curve("loss", look("fa"), [0, 1, 2], [100.0, 1.0, -1.0])
    np.testing.assert_array_equal(
        sized.curves([falling], title="", log=True).axes[0].lines[0].get_ydata(), [100, 1, np.nan]
    )


@pytest.mark.parametrize("decades", [2, 12])
def test_a_marker_at_the_end_of_a_logarithmic_axis_is_whole(decades):
    rising = sized.Curve("loss", look("fa"), [0, 1, 2], 10.0 ** np.linspace(0, decades, 3))
    panel = sized.curves([rising], title="", log=True)
    FigureCanvasAgg(panel).draw()
    axes = panel.axes[0]
    radius = axes.lines[0].get_markersize() / 2 * panel.dpi / 72
    drawn = axes.transData.transform(axes.lines[0].get_xydata())[:, 1]
    frame = axes.get_window_extent()
    assert frame.y0 + radius < drawn.min() < drawn.max() < frame.y1 - radius


@pytest.mark.parametrize("count", [1, 5, 9, 10, 50, 100])
def test_the_first_and_the_last_point_of_a_curve_are_marked(count):
    values = np.r_[np.arange(count, dtype=float), np.nan]
    (line,) = sized.curves([sized.Curve("a", look("fa"), np.arange(count + 1), values)], title="").axes[0].lines
    marked = line.get_markevery()
    assert (marked[0], marked[-1]) == (0, count - 1)
    assert len(marked) == min(count, 9)


def test_chance_is_shown_at_one_snapshot_too_or_not_named():
    one = analysis(3, 1)
    axes = sized.layer_curves(one, "weight_angle", chance=True).axes[0]
    (band,) = axes.patches
    ((low, high),) = null_bands(one, "weight_angle")
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((low[0], high[0]))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["chance ± 3 sd"]
    axes = sized.layer_curves(one * np.nan, "weight_angle", chance=True).axes[0]
    assert axes.get_legend() is None
    ended = analysis(3, 6)
    ended.weight_angle[1:] = np.nan
    axes = sized.layer_curves(ended, "weight_angle").axes[0]
    assert {line.get_marker() for line in axes.lines} == {"o"}  # there is no line to see


def test_stability_shades_what_is_above_one():
    data = DATA["three layers"]
    axes = sized.stability(data).axes[0]
    (shade,) = axes.patches
    assert shade.get_extents().transformed(axes.transData.inverted()).y0 == pytest.approx(1)
    assert axes.get_ylim()[1] >= 1.5


def test_predictions_are_drawn_for_layers_that_carry_error():
    data = DATA["three layers"]
    axes = sized.layer_curves(data, "weight_angle", predicted="predicted_angle").axes[0]
    drawn = {line.get_gid(): line.get_ydata() for line in axes.lines}
    assert set(drawn) == {"layer-0", "layer-1", "layer-2", "layer-1:predicted", "layer-2:predicted"}
    np.testing.assert_array_equal(drawn["layer-2:predicted"], data.predicted_angle[:, 2])


def test_attribution_bars_are_the_costs():
    data = analysis(3, 4)
    data.attribution_angle[1, 0] = np.nan
    bars = sized.attribution(data, "attribution_angle", step=int(data.step[1])).axes[0].patches
    np.testing.assert_array_equal([bar.get_width() for bar in bars], data.attribution_angle[1])


def test_layer_curves_show_the_dataset_and_dot_what_carries_no_error():
    data = DATA["three layers"]
    lines = sized.layer_curves(data, "weight_angle").axes[0].lines
    np.testing.assert_array_equal([line.get_ydata() for line in lines], data.weight_angle.T)
    assert [line.get_linestyle() for line in lines] == [":", "-", "-"]
    assert {line.get_linestyle() for line in sized.layer_curves(data, "error_angle").axes[0].lines} == {"-"}
    assert len({line.get_color() for line in lines}) == 3


def test_every_layer_that_carries_error_has_a_band_of_what_chance_explains():
    data = analysis(3, 4)
    data["weight_angle_null_sd"] = "layer", [9.0, 4.0, 2.0]  # the first layer's feedback carries nothing
    bands = null_bands(data, "weight_angle")
    np.testing.assert_allclose(bands, [[[78.0] * 4, [102.0] * 4], [[84.0] * 4, [96.0] * 4]])
    data["norm_ratio_null"] = "layer", [1.0, 1.0, 1.0]
    data["norm_ratio_null_sd"] = "layer", [0.1, 0.6, 0.1]
    bands = null_bands(data, "norm_ratio")
    np.testing.assert_allclose(bands, [[[1e-3] * 4, [2.8] * 4], [[0.7] * 4, [1.3] * 4]])  # on a logarithmic axis
    assert null_bands(data, "forward_norm") == []
    many = analysis(20, 4)
    many["weight_angle_null_sd"] = "layer", np.arange(20) + 1.0
    np.testing.assert_allclose(null_bands(many, "weight_angle"), [[[30.0] * 4, [150.0] * 4]])  # one for all


def test_spectrum_draws_both_matrices_and_skips_the_padding():
    data = analysis(3, 4, modes=10)
    axes = sized.spectrum(data, 0, steps=[int(data.step[0]), int(data.step[3])]).axes[0]
    assert [len(line.get_ydata()) for line in axes.lines] == [5] * 4  # the generator pads layer 0 after 5
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), data.forward_singular_values[3, 0, :5])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["W", "B"]


def test_error_profile_shows_the_three_angles():
    data = DATA["three layers"]
    axes = sized.error_profile(data).axes[0]
    drawn = {line.get_label(): line.get_xdata() for line in axes.lines if line.get_color() != BAND}
    assert set(drawn) == {"local", "inherited", "total"}
    for part, values in drawn.items():
        np.testing.assert_array_equal(values, data[f"error_angle_{part}"][-1])


def test_product_law_stands_beside_the_error_that_trains():
    data = DATA["three layers"]
    drawn = {line.get_gid(): line.get_xdata() for line in sized.product_law(data, step=int(data.step[1])).axes[0].lines}
    for name in ("error_angle", "error_angle_product"):
        np.testing.assert_array_equal(drawn[name], data[name][1])


def test_curves_name_each_rule_once():
    lines = [sized.Curve(rule, look(rule), [0, 1], [0, 1]) for rule in ("fa", "fa", "kp")]
    panel = sized.curves(lines, title="Loss", events=[Event(1, "diverged")])
    assert [text.get_text() for text in panel.legends[0].get_texts()] == ["fa", "kp"]
    assert panel.axes[0].lines[-1].get_xdata()[0] == 1


def test_spread_keeps_both_ends():
    for count, most in itertools.product(range(1, 40), range(2, 12)):
        got = spread(count, most)
        assert got == sorted(set(got))
        assert (got[0], got[-1], len(got)) == (0, count - 1, min(count, most))


def luminance(color):
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_rules_are_told_apart_in_both_themes(css):
    papers = re.findall(r"--paper: (#\w{6})", css)
    assert len(papers) == 2
    assert len(set(LOOKS.values())) == len({look.marker for look in LOOKS.values()}) == len(LOOKS) == 13
    for (color, _), paper in itertools.product(LOOKS.values(), papers):
        light, dark = sorted((luminance(color), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, (color, paper)


def test_unknown_rules_get_a_look_of_their_own():
    assert look("mine") == look("mine")
    assert look("mine") not in LOOKS.values()


def test_a_short_logarithmic_axis_has_plain_numbers():
    figure = Figure()
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlim(0.02, 0.2)
    plain_numbers(axes.xaxis)
    figure.draw_without_rendering()
    shown = [text.get_text() for text in axes.get_xticklabels(which="both")]
    assert {"0.02", "0.1", "0.2"} <= {*shown}
    assert not any("$" in text for text in shown)
