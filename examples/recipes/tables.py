"""The tables and figures of the papers: the trainings that they are made of.

A new table is one function here. "ENC n" is equation n of Li, Chen & Yang 2021.
"""

from collections.abc import Callable
from typing import Any

from recipes.scales import IMAGENET_NETWORKS, Scale
from recipes.table import Row, Table

Rows = Callable[[Scale], list[Row]]

ENC_PAPER = (
    'Li, Chen & Yang 2021, "Generalization Bound Regularizer: A Unified Perspective for '
    'Understanding Weight Decay", Chinese Journal of Computers'
)
SPECTRAL_PAPER = (
    'Yoshida & Miyato 2017, "Spectral Norm Regularization for Improving the Generalizability of '
    'Deep Learning", https://arxiv.org/abs/1705.10941'
)
WEISSI_PAPER = (
    'Liu, Cui & Chan 2020, "Improve Generalization and Robustness of Neural Networks via Weight '
    'Scale Shifting Invariant Regularizations", https://arxiv.org/abs/2008.02965'
)
_HEAD = (
    "The paper constrains the classifier too and puts batch normalisation behind it. Here ENC "
    "leaves the classifier out, unless a row says otherwise."
)
_EPSILON = (
    "The paper does not give the epsilon of its FGSM, so its accuracies under attack only show an "
    "order."
)
# The GBR and the accuracy are curves over the epochs.
_CURVES = {"monitor_gbr": True, "validate_every": 1}
_CUTMIX_AND_SMOOTHING = ["cutmix", "label-smoothing"]
_GRAY_LEVEL = 1 / 255

TABLES: dict[str, Table] = {}


def _table(
    name: str, heading: str, title: str, columns: str, source: str = ENC_PAPER, note: str = _HEAD
) -> Callable[[Rows], Rows]:
    def register(rows: Rows) -> Rows:
        TABLES[name] = Table(name, heading, title, source, note, tuple(columns.split()), rows)
        return rows

    return register


def _row(label: str, *methods: str, top_1: float | None = None, **changes: Any) -> Row:
    """A row of methods, with the accuracy of the paper."""
    changed = {"methods": list(methods), **changes} if methods else changes
    return Row(label, changed, {} if top_1 is None else {"test_accuracy": top_1})


@_table(
    "1",
    "Table 1",
    "plain weights, two normalisations of weights, and the four forms of ENC",
    "test_accuracy train_accuracy gap gbr gbr_probabilities fgsm_accuracy",
    note=f"The paper's column is ResNet-50 on ImageNet, top-1. {_HEAD}",
)
def _forms(scale: Scale) -> list[Row]:
    return [
        _row("plain", top_1=76.54),
        _row("weight normalization", "weight-norm", top_1=76.44),
        _row("weight standardization", "weight-standardization", top_1=76.74),
        _row("ENC 20", "enc:per_filter=false,center=false", top_1=77.09),
        _row("ENC 21", "enc:center=false", top_1=77.25),
        _row("ENC 22", "enc", top_1=77.44),
        _row("ENC 23", "enc:per_filter=false", top_1=77.21),
    ]


@_table(
    "2",
    "Table 2",
    "the squared norm alpha of ENC 22",
    "test_accuracy train_accuracy gap gbr gbr_probabilities",
    note=f"The paper's column is ResNet-50 on ImageNet, top-1. {_HEAD}",
)
def _alphas(scale: Scale) -> list[Row]:
    return [
        _row("alpha 0.5", "enc:alpha=0.5", top_1=77.31),
        _row("alpha 1", "enc", top_1=77.44),
        _row("alpha 2", "enc:alpha=2.0", top_1=77.40),
        _row("learnable alpha", "enc:learnable_alpha=true", top_1=77.08),
    ]


@_table(
    "3",
    "Table 3",
    "ENC beside augmentations and other regularisers, and under attack by FGSM",
    "test_accuracy train_accuracy gap gbr gbr_probabilities fgsm_accuracy",
    note=(
        "The paper's columns are ResNet-50 on ImageNet, top-1. We do not know its numbers for the "
        f"rows that have none. {_EPSILON} {_HEAD}"
    ),
)
def _combinations(scale: Scale) -> list[Row]:
    drop_block = f"drop-block:size={scale.drop_block}"
    all_three = {"test_accuracy": 77.96, "fgsm_accuracy": 34.81}
    return [
        Row("plain", {}, {"test_accuracy": 76.54, "fgsm_accuracy": 17.54}),
        _row("label smoothing", "label-smoothing"),
        _row("Cutout", "cutout"),
        _row("Mixup", "mixup"),
        _row("CutMix", "cutmix"),
        _row("Dropout", "dropout"),
        _row("DropBlock", drop_block),
        Row("ENC", {"methods": ["enc"]}, {"test_accuracy": 77.44, "fgsm_accuracy": 29.87}),
        Row(
            "ENC + CutMix + label smoothing",
            {"methods": ["enc", *_CUTMIX_AND_SMOOTHING]},
            all_three,
        ),
    ]


# Top-1 on ImageNet in %, plain and with ENC, and millions of parameters.
_NETWORKS_OF_THE_PAPER = {
    "resnet50": (76.54, 77.44, 25.56),
    "resnet101": (78.17, 78.44, 44.55),
    "resnext50": (77.64, 78.26, 25.03),
    "resnext101": (78.71, 78.96, 44.18),
    "se_resnet50": (77.55, 78.23, 28.09),
    "se_resnet101": (78.43, 78.75, 49.36),
    "densenet201": (77.54, 77.96, 20.01),
}
# We do not know which of the paper's tables hold these numbers, only the numbers.
_NUMBERING = "The number of this table is ours: we do not know the paper's. "
_BELOW_IMAGENET = (
    "Below the scale imagenet, networks for CIFAR-10 take the place of the paper's; they have no "
    "numbers of the paper. "
)


@_table(
    "4",
    "Table 4",
    "other networks, plain and with ENC",
    "test_accuracy train_accuracy gap gbr_probabilities fgsm_accuracy",
    note=f"{_NUMBERING}{_BELOW_IMAGENET}{_HEAD}",
)
def _networks(scale: Scale) -> list[Row]:
    rows = []
    for network, label in scale.networks.items():
        known = _NETWORKS_OF_THE_PAPER.get(network) if network in IMAGENET_NETWORKS else None
        for index, methods in enumerate(([], ["enc"])):
            paper = {"test_accuracy": known[index], "parameters": known[2]} if known else {}
            shown = f"{label}, {'ENC' if methods else 'plain'}"
            changes = {"network": network} | ({"methods": methods} if methods else {})
            rows.append(Row(shown, changes, paper))
    return rows


_table(
    "5",
    "Table 5",
    "what these networks cost: the trainings of table 4",
    "parameters images_per_second compilation_seconds peak_memory_bytes training_seconds",
    note=(
        f"{_NUMBERING}{_BELOW_IMAGENET}Rows that share an accelerator (`--jobs`) slow each other "
        "down: compare the speed of rows that ran alone."
    ),
)(_networks)


@_table(
    "figure1",
    "Figure 1",
    "the GBR over the epochs for several weight decays",
    "test_accuracy train_accuracy gap gbr gbr_probabilities fgsm_accuracy",
    note="In the paper the GBR falls as the weight decay grows.",
)
def _weight_decays(scale: Scale) -> list[Row]:
    decays = ("0", "1e-8", "1e-6", "1e-4", "1e-3", "1e-2")
    return [_row(f"weight decay {text}", weight_decay=float(text), **_CURVES) for text in decays]


@_table(
    "figure3",
    "Figure 3",
    "the GBR and the accuracy over the epochs, plain and with ENC",
    "test_accuracy train_accuracy gap gbr gbr_probabilities fgsm_accuracy",
    note=f"In the paper ENC lowers the GBR. {_HEAD}",
)
def _plain_and_enc(scale: Scale) -> list[Row]:
    return [_row("plain", **_CURVES), _row("ENC", "enc", **_CURVES)]


@_table(
    "batch",
    "Batch sizes",
    "weight decay and spectral norm regularization with a small and a large batch",
    "test_accuracy train_accuracy gap gbr gbr_probabilities",
    SPECTRAL_PAPER,
    "The paper compares the gap between training and test. The learning rate is the same for both "
    "batches. The factor of the squared norm is lambda / 2 in the paper.",
)
def _batches(scale: Scale) -> list[Row]:
    rows = []
    for batch_size in scale.batches:
        changes = {"batch_size": batch_size, "weight_decay": 0.0}
        rows += [
            _row(f"plain, batch {batch_size}", **changes),
            _row(f"weight decay 1e-4, batch {batch_size}", **changes | {"weight_decay": 1e-4}),
            _row(f"spectral 0.005, batch {batch_size}", "spectral:factor=0.005", **changes),
        ]
    return rows


@_table(
    "weissi",
    "WEISSI",
    "the weight-scale-shift invariant regularizer against L2",
    "test_accuracy train_accuracy gap gbr gbr_probabilities fgsm_accuracy pgd_accuracy",
    WEISSI_PAPER,
    "These networks have batch normalisation: scales cannot shift between layers, and the "
    "logarithm only shrinks the kernels.",
)
def _weissi(scale: Scale) -> list[Row]:
    none = {"weight_decay": 0.0}
    return [
        _row("plain", **none),
        _row("L2, decay 1e-4", weight_decay=1e-4),
        _row("L2, decay 1e-3", weight_decay=1e-3),
        _row("WEISSI, log 1e-3", "weissi:log_factor=1e-3", **none),
        _row("WEISSI, log 1e-2", "weissi:log_factor=1e-2", **none),
        _row("WEISSI, log 1e-2, L1 1e-4", "weissi:log_factor=1e-2,l1_factor=1e-4", **none),
    ]


@_table(
    "penalties",
    "Penalties",
    "penalties on gradients, and adversarial training, under attack by FGSM and PGD",
    "test_accuracy gap gbr gbr_probabilities fgsm_accuracy pgd_accuracy images_per_second",
    "Hoffman, Roberts & Yaida 2019, https://arxiv.org/abs/1908.02729 (Jacobian); Drucker & LeCun "
    "1992, https://doi.org/10.1109/72.165600 (input gradient); Goodfellow, Shlens & Szegedy "
    "2015, https://arxiv.org/abs/1412.6572 (adversarial)",
    "No table of a paper: the weights are ours.",
)
def _penalties(scale: Scale) -> list[Row]:
    rows = [_row("plain")]
    for name, weights in (("jacobian", (1e-4, 1e-3, 1e-2)), ("input-gradient", (0.01, 0.05, 0.2))):
        rows += [_row(f"{name} {w:g}", penalties=[f"{name}:{w:g}"]) for w in weights]
    for levels in (2, 8):
        penalty = f"adversarial:1.0,epsilon={levels * _GRAY_LEVEL:.6f}"
        rows.append(_row(f"adversarial 1, epsilon {levels}/255", penalties=[penalty]))
    both = _row("ENC + input-gradient 0.05", "enc", penalties=["input-gradient:0.05"])
    return [*rows, _row("ENC", "enc"), both]


@_table(
    "conditions",
    "Conditions",
    "ENC against plain under other conditions",
    "test_accuracy train_accuracy gap gbr gbr_probabilities fgsm_accuracy",
    note="No table of the paper: the search for the conditions under which its claims show.",
)
def _conditions(scale: Scale) -> list[Row]:
    epochs, small = scale.settings["epochs"], scale.batches[0]
    shared = {
        "as in table 1": {},
        f"{3 * epochs} epochs": {"epochs": 3 * epochs},
        "weight decay 0": {"weight_decay": 0.0},
        "weight decay 5e-4": {"weight_decay": 5e-4},
        f"batch {small}": {"batch_size": small},
        f"network {scale.deeper}": {"network": scale.deeper},
    }
    rows = []
    for label, changes in shared.items():
        rows += [_row(f"plain, {label}", **changes), _row(f"ENC, {label}", "enc", **changes)]
    return [
        *rows,
        _row("ENC, L2 instead of shifted L2", "enc", shifted_l2=False),
        _row("ENC, the classifier too", "enc:head=wrapped"),
        _row("ENC, the classifier too, with batch normalisation", "enc:head=normalized"),
    ]
