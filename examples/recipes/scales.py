"""How large the trainings of a table are."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scale:
    """What all tables have in common at one scale.

    Attributes:
        name: Its name on the command line.
        settings: Settings of every row, as in `Config`.
        batches: A small and a large batch, for the table "batch".
        networks: Names and labels of the networks of tables 4 and 5.
        deeper: A network with more layers than the usual one, for the table "conditions".
        drop_block: The width of the squares that DropBlock drops. It works on maps of 14 x 14
            and 7 x 7 for ImageNet, and of 16 x 16 and 8 x 8 for CIFAR-10.
    """

    name: str
    settings: dict[str, Any]
    batches: tuple[int, int]
    networks: dict[str, str]
    deeper: str
    drop_block: int


CIFAR_NETWORKS = {"resnet8": "ResNet-8", "resnet20": "ResNet-20", "wrn16_4": "WRN-16-4"}
IMAGENET_NETWORKS = {
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "resnext50": "ResNeXt-50",
    "resnext101": "ResNeXt-101",
    "se_resnet50": "SE-ResNet-50",
    "se_resnet101": "SE-ResNet-101",
    "densenet201": "DenseNet-201",
}

_ALL = (
    # Only a test that everything runs: the numbers mean nothing.
    Scale(
        "smoke",
        {
            "data": "digits",
            "samples": 128,
            "network": "resnet8",
            "epochs": 1,
            "batch_size": 32,
            "attacked": 32,
            "pgd_steps": 2,
        },
        batches=(16, 64),
        networks=CIFAR_NETWORKS,
        deeper="resnet20",
        drop_block=1,
    ),
    Scale(
        "small",
        {
            "data": "cifar10",
            "samples": 10_000,
            "network": "resnet8",
            "epochs": 8,
            "batch_size": 128,
            "validate_every": 4,
            "attacked": 500,
        },
        batches=(64, 1024),
        networks=CIFAR_NETWORKS,
        deeper="resnet20",
        drop_block=3,
    ),
    Scale(
        "cifar",
        {
            "data": "cifar10",
            "network": "resnet20",
            "epochs": 60,
            "batch_size": 256,
            "validate_every": 10,
        },
        batches=(64, 4096),
        networks=CIFAR_NETWORKS,
        deeper="resnet56",
        drop_block=3,
    ),
    Scale(
        "imagenet",
        {"data": "imagenet2012", "network": "resnet50", "epochs": 100, "batch_size": 256},
        batches=(64, 1024),
        networks=IMAGENET_NETWORKS,
        deeper="resnet101",
        drop_block=7,
    ),
)
SCALES = {scale.name: scale for scale in _ALL}
