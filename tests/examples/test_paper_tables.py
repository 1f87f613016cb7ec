"""The tables of the papers, with a program that stands in for train.py and takes no time."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import matplotlib.image
import numpy as np
import pytest

from support.scripts import FOLDER, ROOT, check_refused, load

SCRIPT = "paper_tables.py"
SMOKE = ["--scale", "smoke"]

# Stands in for train.py. Its first argument is a file of orders by the name of a method: how many
# seconds to sleep ("sleep", of all methods by "all"), and which methods fail or diverge. It notes
# what it does in the file "log" beside the orders.
PROGRAM = """
import json, os, sys, time
from pathlib import Path

orders = json.loads(Path(sys.argv[1]).read_text())
sys.path.insert(0, orders["examples"])
from recipes.config import Config, read

options = dict(zip(sys.argv[2:6:2], map(Path, sys.argv[3:7:2])))
assert sys.argv[6:] == ["--resume", "--quiet"], sys.argv
config, folder = Config(**read(options["--config"])), options["--output"]
method = ",".join(config.methods) or "plain"
with open(Path(sys.argv[1]).with_name("log"), "a") as log:
    log.write(f"{os.getpid()} {method} {config.seed}\\n")
time.sleep(orders["sleep"].get(method, orders["sleep"]["all"]))
if method in orders["fail"]:
    print("a warning", file=sys.stderr)
    raise SystemExit("train.py: error: no room | here")
result = {"status": "finished", "message": "", "config": config.as_dict()}
if method in orders["diverge"]:
    message = "the loss was not finite in epoch 4"
    result = {"status": "diverged", "message": message, "config": config.as_dict()}
else:
    accuracy = 0.5 + config.seed**2 / 64 + len(method) / 256
    result.update(
        test_accuracy=accuracy, train_accuracy=accuracy + 0.25, gap=0.25,
        gbr=10.0 + config.seed, gbr_probabilities=None, parameters=1234567,
        fgsm_accuracy=0.25, fgsm_epsilon=0.125, fgsm_by="a toolbox", pgd_accuracy=0.125,
        pgd_epsilon=0.125, pgd_steps=2, attacked=32, hardware="a machine", backend="tensorflow",
        images_per_second=1000.0, versions={"keras": "3", "tensorflow": "2"},
        history=[
            {"epoch": e, "gbr": e + config.seed, "test_gbr": 2.0 * e, "accuracy": e / 100,
             "test_accuracy": e / 200}
            for e in range(1, 91)
        ],
    )
(folder / "result.json").write_text(json.dumps(result))
sys.exit(3 if result["status"] == "diverged" else 0)
"""

# The real program in a process of its own, with the program above in the place of train.py.
DRIVER = """
import json, sys
import paper_tables
paper_tables.main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
"""


class Bench:
    """A folder with the stand-in, its orders and its log."""

    def __init__(self, folder, example):
        self.folder, self.example, self.output = folder, example, folder / "tables"
        self.order()
        (folder / "program.py").write_text(PROGRAM)
        self.program = [sys.executable, str(folder / "program.py"), str(folder / "orders.json")]

    def order(self, sleep=0.0, fail=(), diverge=(), **sleeps):
        orders = {"sleep": {"all": sleep, **sleeps}, "fail": fail, "diverge": diverge}
        text = json.dumps({**orders, "examples": str(FOLDER)})
        (self.folder / "orders.json").write_text(text)

    def main(self, *arguments):
        self.example.main([*map(str, arguments), "--output", str(self.output)], self.program)

    def start(self, *arguments):
        arguments = [*map(str, arguments), "--output", str(self.output)]
        paths = os.pathsep.join([str(ROOT), str(FOLDER)])
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, json.dumps(arguments), json.dumps(self.program)],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
        )

    def log(self):
        """What started so far: process, method and seed."""
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), method, int(seed)) for pid, method, seed in map(str.split, lines)]

    def started(self):
        return [(method, seed) for _, method, seed in self.log()]

    def results(self):
        return len(list(self.output.glob("cache/*/result.json")))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    return Bench(tmp_path, load(SCRIPT, monkeypatch))


def wait_until(condition, seconds=20):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def is_alive(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def cells(text, label):
    """The cells of the line of a Markdown table that begins with a label."""
    (line,) = (line for line in text.splitlines() if re.match(rf"\| {re.escape(label)} +\|", line))
    return [cell.strip() for cell in line.strip("|").split("|")]


ALPHAS = ["enc:alpha=0.5", "enc", "enc:alpha=2.0", "enc:learnable_alpha=true"]


def test_rows_start_seed_by_seed_and_only_once(bench, capsys):
    bench.main("--table", "2", *SMOKE, "--seeds", 2)
    assert bench.started() == [(method, seed) for seed in range(2) for method in ALPHAS]
    bench.main("--table", "2", *SMOKE, "--seeds", 2)
    assert len(bench.started()) == 8
    # ENC 22 of table 1 is alpha 1 of table 2.
    bench.main("--table", "1", "2", *SMOKE, "--seeds", 1)
    assert len(bench.started()) == 8 + 6
    assert "Trainings: 10, of which done: 4" in capsys.readouterr().out


def test_a_row_is_trained_again_under_another_backend_or_keras(bench, monkeypatch):
    rows = sys.modules["recipes.rows"]
    tables, scales = sys.modules["recipes.tables"], sys.modules["recipes.scales"]
    row = tables.TABLES["1"].rows(scales.SCALES["small"])[0]
    config = rows.config_of(row, scales.SCALES["small"])
    names = {rows.key(config)}
    names.add(rows.key(rows.config_of(row, scales.SCALES["small"], data="other.npz")))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    names.add(rows.key(config))
    monkeypatch.setattr(rows.metadata, "version", lambda name: "4.0")
    names.add(rows.key(config))
    assert len(names) == 4


def test_cells_are_mean_and_sample_deviation_beside_the_numbers_of_the_paper(bench, capsys):
    bench.main("--table", "1", *SMOKE, "--seeds", 3, "--jobs", 4)
    printed = capsys.readouterr().out
    accuracies = 100 * (0.5 + np.arange(3) ** 2 / 64 + len("enc:center=false") / 256)
    row = cells(printed, "ENC 21")
    assert row[1:3] == [f"{np.mean(accuracies):.2f} ±{np.std(accuracies, ddof=1):.2f}", "77.25"]
    assert row[4:] == ["25.00 ±0.00", "11 ±1", "-", "25.00 ±0.00", "3"]
    assert cells(printed, "row")[1:3] == ["test %", "paper: test %"]
    assert "[21/21]" in printed
    assert "FGSM with epsilon 0.125 (a toolbox); on 32 test images" in printed


def test_failed_and_diverged_rows_say_so_and_the_others_go_on(bench, capsys):
    bench.order(fail=["weight-norm"], diverge=["weight-standardization"])
    with pytest.raises(SystemExit, match="2 trainings failed"):
        bench.main("--table", "1", *SMOKE, "--seeds", 2)
    printed = capsys.readouterr().out
    row = cells(printed, "weight normalization")
    assert row[1] == "failed: train.py: error: no room / here (seed 0, 1)"
    row = cells(printed, "weight standardization")
    assert row[1:] == ["NaN after epoch 4 (seed 0, 1)", "76.74", *["-"] * 6]
    assert cells(printed, "ENC 23")[-1] == "2"

    bench.order()
    bench.main("--table", "1", *SMOKE, "--seeds", 2)
    again = bench.started()[14:]
    assert again == [("weight-norm", 0), ("weight-norm", 1)]  # a diverged row stays so
    assert cells(capsys.readouterr().out, "weight normalization")[-1] == "2"


@pytest.mark.skipif(sys.platform != "linux", reason="the system must kill the children")
def test_sigkill_loses_only_the_rows_that_run_and_leaves_no_process(bench):
    bench.order(**{"enc": 60, "enc:alpha=2.0": 60})
    parent = bench.start("--table", "2", *SMOKE, "--seeds", 1, "--jobs", 2)
    wait_until(lambda: len(bench.started()) == 3 and bench.results() == 1)
    pids = [pid for pid, method, _ in bench.log() if method in ("enc", "enc:alpha=2.0")]
    assert all(map(is_alive, pids))
    parent.kill()
    parent.communicate()
    wait_until(lambda: not any(map(is_alive, pids)))
    assert bench.results() == 1

    bench.order()
    bench.main("--table", "2", *SMOKE, "--seeds", 1)
    assert bench.started()[3:] == [
        ("enc", 0),
        ("enc:alpha=2.0", 0),
        ("enc:learnable_alpha=true", 0),
    ]


def test_sigterm_stops_the_rows_that_run_and_prints_what_there_is(bench):
    bench.order(enc=60)
    parent = bench.start("--table", "2", *SMOKE, "--seeds", 1)
    wait_until(lambda: len(bench.started()) == 2)
    parent.send_signal(signal.SIGTERM)
    printed, _ = parent.communicate(timeout=20)
    assert parent.returncode == 130
    assert not is_alive(bench.log()[-1][0])
    assert cells(printed, "alpha 0.5")[-1] == "1"
    assert cells(printed, "alpha 1")[1:3] == ["-", "77.44"]
    assert "Interrupted. The same command goes on." in printed


def test_no_row_starts_that_would_not_end_within_the_budget(bench, capsys):
    bench.order(sleep=2.0)
    bench.main("--table", "2", *SMOKE, "--seeds", 1, "--budget", 3.9)
    assert bench.started() == [(ALPHAS[0], 0)]
    printed = capsys.readouterr().out
    assert cells(printed, "alpha 0.5")[-1] == "1"
    assert "Trainings left: 3" in printed


def test_rows_that_run_at_the_end_of_the_budget_are_stopped(bench, capsys):
    bench.order(sleep=60.0, **{ALPHAS[0]: 0.0})
    begin = time.monotonic()
    bench.main("--table", "2", *SMOKE, "--seeds", 1, "--budget", 2, "--jobs", 4)
    assert time.monotonic() - begin < 20
    assert not any(is_alive(pid) for pid, *_ in bench.log())
    printed = capsys.readouterr().out
    assert cells(printed, "alpha 0.5")[-1] == "1"
    assert "Trainings left: 3" in printed


def test_results_and_figures_are_made_again_from_the_committed_file(bench, tmp_path):
    bench.order(diverge=["enc:alpha=2.0"])
    bench.main("--table", "2", "figure1", "figure3", "penalties", *SMOKE, "--seeds", 2, "--jobs", 8)
    roots = [tmp_path / "first", tmp_path / "clone"]
    for root in roots:
        (root / "examples").mkdir(parents=True)
        (root / "docs").mkdir()
        notes = "## Table 2\n\nNothing *to see*.\n"
        (root / "examples" / "results_notes.md").write_text(notes)
    bench.main("--render", *SMOKE, "--root", roots[0])
    file = "examples/results.json"
    (roots[1] / file).write_text((roots[0] / file).read_text())
    bench.output = tmp_path / "empty"
    bench.main("--render", *SMOKE, "--root", roots[1])

    texts = [(root / "examples" / "RESULTS.md").read_text(encoding="utf-8") for root in roots]
    assert texts[0] == texts[1]
    assert (roots[0] / file).read_text() == (roots[1] / file).read_text()
    assert "### Table 2: what it shows\n\nNothing *to see*.\n" in texts[0]
    assert cells(texts[0], "alpha 2")[1] == "NaN after epoch 4 (seed 0, 1)"
    assert "## Conditions" not in texts[0]  # of its fifteen rows only two are there
    command = "--table penalties --scale smoke --seeds 2 --jobs 8`"
    assert command in texts[0]
    for name in ("figure1", "figure3", "penalties"):
        (address,) = re.findall(rf"\.\./docs/results-{name}-smoke-digits-.*\.png", texts[0])
        images = [matplotlib.image.imread(root / "examples" / address) for root in roots]
        np.testing.assert_array_equal(*images)
        assert (images[0][..., :3] < 0.5).mean() > 0.005  # something is drawn


def test_smoke_rows_stay_out_of_the_results_unless_they_are_asked_for(bench, tmp_path):
    bench.main("--table", "2", *SMOKE, "--seeds", 1)
    with pytest.raises(
        SystemExit, match="a third of no table of the scales small, cifar, imagenet"
    ):
        bench.main("--render", "--root", tmp_path)


def test_curves_are_means_and_deviations_over_the_seeds(bench):
    bench.main("--table", "figure3", *SMOKE, "--seeds", 3)
    figures = load("recipes.figures", pytest.MonkeyPatch())
    entries = [
        entry
        for entry in sys.modules["recipes.results"].read_cache(bench.output)
        if not entry["config"]["methods"]
    ]
    epochs, means, spreads = figures.curve(entries, "gbr")
    assert len(epochs) == 40  # of 90
    assert (epochs[0], epochs[-1]) == (1, 90)
    np.testing.assert_allclose(means, epochs + np.mean([0, 1, 2]))
    np.testing.assert_allclose(spreads, np.std([0, 1, 2], ddof=1))


def test_a_folder_takes_one_program_at_a_time(bench):
    bench.order(sleep=60.0)
    parent = bench.start("--table", "2", *SMOKE)
    wait_until(bench.log)
    with pytest.raises(SystemExit, match=r"another paper_tables.py trains in .* Wait"):
        bench.main("--table", "2", *SMOKE)
    parent.terminate()
    parent.communicate(timeout=20)


def test_processes_share_the_cores_and_the_memory(bench, monkeypatch):
    pool = sys.modules["recipes.pool"]
    monkeypatch.setattr(pool.os, "cpu_count", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    variables = pool.environment(bench.output, 8)
    assert variables["OMP_NUM_THREADS"] == "2"
    assert variables["TF_NUM_INTRAOP_THREADS"] == "3"  # the user's
    assert variables["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert "OMP_NUM_THREADS" not in pool.environment(bench.output, 1)


def test_every_row_of_every_table_is_one_that_train_knows(bench, monkeypatch):
    networks = load("recipes.networks", monkeypatch).NETWORKS
    methods = load("recipes.methods", monkeypatch)
    rows, render = sys.modules["recipes.rows"], sys.modules["recipes.render"]
    for scale in sys.modules["recipes.scales"].SCALES.values():
        for table in sys.modules["recipes.tables"].TABLES.values():
            labels = [row.label for row in table.rows(scale)]
            assert len(set(labels)) == len(labels)
            for row in table.rows(scale):
                config = rows.config_of(row, scale, 2)
                assert config.seed == 2
                assert config.network in networks
                methods.combined(config.methods, config.penalties)
                assert set(table.columns) <= set(render.COLUMNS)
                if config.samples:
                    assert config.batch_size <= config.samples


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --table or --render"),
        (["--table", "6"], "invalid choice: '6'"),
        (["--table", "1", "--jobs", "0"], "must be a whole number >= 1. Received: 0"),
        (["--table", "1", "--budget", "-1"], "must be a number > 0. Received: -1"),
        (["--table", "1", "--render"], "--render makes all tables: leave --table out"),
        (["--table", "1", "--data", "no.npz"], "there is no file no.npz"),
        (["--table", "1", "--output", FOLDER / SCRIPT], "File exists"),
    ],
)
def test_bad_arguments_are_refused(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    check_refused(load(SCRIPT, monkeypatch), arguments, message, capsys)


def test_a_comment_on_no_table_is_refused(bench, tmp_path):
    bench.main("--table", "2", *SMOKE, "--seeds", 1)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "results_notes.md").write_text("## Table 9\n\nLost.\n")
    with pytest.raises(SystemExit, match=r"must be one of Introduction, .* Received: 'Table 9'"):
        bench.main("--render", *SMOKE, "--root", tmp_path)
