"""What every test starts from: fixed seeds, the default precision, reproducible properties."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
from hypothesis import HealthCheck, settings

from support.networks import allow_float64, use_float64

BACKEND = keras.backend.backend()
if BACKEND != "torch":
    # Tests compile much and run little, so these flags halve the time of compiling.
    os.environ.setdefault(
        "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    )
# Devices for strategies with two and with four replicas; before anything runs on one.
if BACKEND == "tensorflow":
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 6
    )
if BACKEND == "jax":
    import jax

    jax.config.update("jax_num_cpu_devices", 4)
if BACKEND == "torch":
    import torch

    # Small tensors gain nothing from more threads, and processes side by side would slow down.
    torch.set_num_threads(1)

# Tests of one backend only: strategies, exports, graphs without second derivatives, devices.
# differential/ starts all backends itself, so that one run of it is enough.
ONLY = {
    "tensorflow": [
        "backend/test_corrected_gradients.py",
        "backend/test_cut_derivatives.py",
        "backend/test_image_transforms.py",
        "backend/test_second_derivatives.py",
        "differential",
        "layers/test_exports.py",
        "layers/test_onnx.py",
        "penalties/test_every_layer.py",
        "training/test_multi_worker.py",
        "training/test_tensorflow_replicas.py",
    ],
    "jax": ["training/test_jax_trainer.py"],
    "torch": ["training/test_torch_trainer.py"],
}
collect_ignore = [path for backend in ONLY if backend != BACKEND for path in ONLY[backend]]

# Derandomised: the same examples on every machine, so a failure is a change of the code. The
# precision that a fixture sets is meant for all examples. Most of them run where nothing is traced
# or compiled for each shape anew.
settings.register_profile(
    "reproducible",
    derandomize=True,
    deadline=None,
    max_examples=60 if BACKEND == "torch" else 10,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("reproducible")


@pytest.fixture(autouse=True)
def fixed_seeds_and_precision():
    """Seeds all generators, and restores the global precision that a test may change."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.utils.set_random_seed(20)
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    allow_float64(False)


@pytest.fixture
def double_precision(fixed_seeds_and_precision):
    """Everything that the test builds is in double precision."""
    use_float64()


def pytest_addoption(parser):
    parser.addoption(
        "--whole-tables",
        action="store_true",
        help="every combination of tables that are otherwise taken by turns; takes hours",
    )


def pytest_collection_modifyitems(config, items):
    """Leaves out the tests that only `--whole-tables` runs."""
    if not config.getoption("whole_tables"):
        later = [item for item in items if item.get_closest_marker("whole_table")]
        items[:] = [item for item in items if not item.get_closest_marker("whole_table")]
        config.hook.pytest_deselected(items=later)


# Only tests that end their process run once more: in long processes, with several strategies and
# many programs, TensorFlow's runtime crashes now and then. A failed assertion is final.
CRASHED = []


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem, report, sched):
    """Runs a test again if its process crashed; a second crash is a failure."""
    if crashitem not in CRASHED:
        CRASHED.append(crashitem)
        report.outcome = "rerun"
        sched.mark_test_pending(crashitem)


def pytest_terminal_summary(terminalreporter):
    """Names the tests that ran again."""
    for name in CRASHED:
        terminalreporter.write_line(f"RAN AGAIN since its process crashed: {name}")
