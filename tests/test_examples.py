"""The examples run from the command line and say what is wrong with their arguments."""

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

pytest.importorskip("art")

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "compare_methods.py"
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


def run(*arguments):
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_compare_methods_writes_a_table_and_a_figure(tmp_path):
    done = run("--smoke", "--methods", *METHODS[:0:-1], "--output", tmp_path / "new" / "folder")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
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
        (["--output", SCRIPT], "File exists"),
        (["--dataset", "no_such_data_set"], "no_such_data_set"),
    ],
)
def test_bad_arguments_stop_the_comparison_before_it_trains(
    monkeypatch, capsys, tmp_path, arguments, message
):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    import compare_methods

    with pytest.raises(SystemExit) as stop:
        compare_methods.main(list(map(str, arguments)))
    assert stop.value.code not in (0, None)
    assert message in f"{stop.value.code} {capsys.readouterr().err}"
