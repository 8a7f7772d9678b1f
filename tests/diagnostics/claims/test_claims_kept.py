"""Verdicts written and read, in tables and on pages."""

import dataclasses
import io
import json
import math

import pytest
from rich.console import Console

from bench.evidence import claims as bench_claims
from tests.diagnostics.claims.worlds import world
from wtdiag.diagnostics.claims import CLAIMS, VERDICTS, Result, claims_table, decide, read_claims, write_claims
from wtdiag.diagnostics.comparison.results import StudyResults
from wtdiag.probes.errors import InputError


def test_names_are_checked_and_keep_their_order(holding):
    assert [each.name for each in decide(holding)] == list(CLAIMS)
    assert decide(holding, []) == ()
    assert [each.name for each in decide(StudyResults(), ["kp-near-bp", "fa-behind-bp"])] == [
        "kp-near-bp",
        "fa-behind-bp",
    ]
    with pytest.raises(InputError, match="claims: 'ia-gap' is not known; did you mean 'ia-gap-widens'"):
        decide(holding, ["ia-gap"])


def test_results_are_written_and_read(holding, tmp_path):
    results = decide(holding) + decide(StudyResults(), ["fa-behind-bp"])
    write_claims(results, tmp_path / "claims.json")
    assert "NaN" not in (tmp_path / "claims.json").read_text()
    found = read_claims(tmp_path / "claims.json")
    assert found[:-1] == results[:-1]
    assert math.isnan(found[-1].value)
    assert found[-1].verdict == "not tested"


GOOD = dataclasses.asdict(Result("a", "b", "c", "d", 0.1, 0.0, 0.2, 5, 0.02, "seen", "e"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GOOD | {"verdict": "true"}, f"claim 1: verdict: 'true' is not known.* Choices: {VERDICTS[0]}"),
        (GOOD | {"n": 5.5}, "claim 1: n is 5.5; expected int"),
        (GOOD | {"n": True}, "claim 1: n is True; expected int"),
        (GOOD | {"why": None}, "claim 1: why is None; expected str"),
        (GOOD | {"more": 1}, "claim 1: expected the fields name, paper"),
        ([], "claim 1: expected the fields"),
    ],
)
def test_strangers_files_are_checked(row, message, tmp_path):
    path = tmp_path / "claims.json"
    path.write_text(json.dumps({"format": 2, "claims": [row]}))
    with pytest.raises(InputError, match=f"{path}: {message}"):
        read_claims(path)


def test_another_format_is_refused(tmp_path):
    (tmp_path / "claims.json").write_text('{"format": 3, "claims": []}')
    with pytest.raises(InputError, match="expected claims of format 2"):
        read_claims(tmp_path / "claims.json")


def test_verdicts_of_the_first_format_are_read(holding, tmp_path):
    results = decide(holding, ["fa-behind-bp"])
    rows = [{name: value for name, value in dataclasses.asdict(each).items() if name != "network"} for each in results]
    (tmp_path / "claims.json").write_text(json.dumps({"format": 1, "claims": rows}))
    assert read_claims(tmp_path / "claims.json") == results


def test_the_table_is_80_columns_wide(holding, failing):
    untested = decide(StudyResults())
    spoiled = [dataclasses.replace(each, name=each.name + "\x1b[2J", low=-1.0, high=-0.999) for each in decide(failing)]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(claims_table([*decide(holding), *spoiled, *untested, *decide(world(True, 2, 2))]))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "undecided at this scale" in text
    assert "−100.0 to −99.9" in text
    for name in CLAIMS:
        assert name in text


def test_the_page_tells_what_a_study_saw(holding, tmp_path):
    holding.grid.to_netcdf(tmp_path / "results.nc", engine="h5netcdf")
    about = {"title": "Small", "command": "wtdiag study small/x", "claims": ["fa-behind-bp", "ia-more-robust"]}
    (tmp_path / "study.json").write_text(json.dumps(about))
    text = bench_claims.section(tmp_path)
    assert text.startswith("### Small\n\n```\nwtdiag study small/x\n```\n\n| claim |")
    assert "**seen**" in text
    assert text.endswith("Not tested: `ia-more-robust`.")
    for name in CLAIMS:
        assert f"| `{name}` |" in bench_claims.rules_table()
