"""The examples run from the command line and say what is wrong with their arguments."""

import csv
import math

import matplotlib.image
import pytest
from scripts import FOLDER, check_done, check_refused, load, run

pytest.importorskip("art")

SCRIPT = "compare_methods.py"
METHODS = ["plain", "l2", "enc-22", "weight-norm", "jacobian"]
MEASURES = [
    "train_accuracy",
    "test_accuracy",
    "gap",
    "gbr",
    "gbr_probabilities",
    "fgsm_accuracy",
    "step_time",
]


def test_compare_methods_writes_a_table_and_a_figure(tmp_path):
    arguments = ["--methods", *METHODS[:0:-1], "--output", tmp_path / "new" / "folder"]
    done = run(SCRIPT, "--smoke", *arguments)
    check_done(done)
    assert f"[{len(METHODS)}/{len(METHODS)}]" in done.stdout
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "compare_methods.csv",
        "compare_methods.png",
    ]

    with open(folder / "compare_methods.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == METHODS
    for row in rows:
        values = {name: float(row[name]) for name in MEASURES}
        spreads = [float(row[f"{name}_spread"]) for name in MEASURES]
        assert all(map(math.isfinite, [*values.values(), *spreads]))
        for name in ("train_accuracy", "test_accuracy", "fgsm_accuracy"):
            assert 0 <= values[name] <= 1
        gap = values["train_accuracy"] - values["test_accuracy"]
        assert values["gap"] == pytest.approx(gap, abs=1e-6)
        assert values["gbr"] > 0
        assert values["step_time"] > 0
        assert row["method"] in done.stdout

    by_name = {row["method"]: row for row in rows}
    assert float(by_name["enc-22"]["own"]) == pytest.approx(
        float(by_name["enc-22"]["setting"].removeprefix("alpha=")), rel=1e-3
    )
    assert float(by_name["l2"]["own"]) < float(by_name["l2"]["own_plain"])
    assert by_name["plain"]["own"] == by_name["weight-norm"]["own"] == ""

    height, width, _ = matplotlib.image.imread(folder / "compare_methods.png").shape
    assert width > 1000
    assert height > 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "l2", "l3"], "invalid choice: 'l3'"),
        (["--epochs", "0"], "must be a whole number >= 1. Received: 0"),
        (["--seeds", "two"], "must be a whole number >= 1. Received: two"),
        (["--samples", "-5"], "must be a whole number >= 1. Received: -5"),
        (["--epsilon", "2"], "must be in (0, 1]. Received: 2.0"),
        (["--output", FOLDER / SCRIPT], "File exists"),
        (["--dataset", "no_such_data_set"], "no_such_data_set"),
    ],
)
def test_bad_arguments_stop_the_comparison_before_it_trains(
    monkeypatch, capsys, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    check_refused(load(SCRIPT, monkeypatch), arguments, message, capsys)


def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch):
    tools = load("example_tools", monkeypatch)
    with (
        pytest.raises(SystemExit, match=r"^some.py: error: the package 'no_such_package' .*pip"),
        tools.quiet_imports("examples/some.py"),
    ):
        import no_such_package  # noqa: F401
