"""Values and gradients of the penalties in PyTorch, written from their formulas.

Makes torch_penalties.json beside this file, which tests/test_torch_reference.py compares with
Keras. PyTorch is no requirement of the tests; the file was made in an environment of its own by

    pip install torch==2.13.0 numpy
    python tests/references/torch_penalties.py

Two tanh networks in double precision, their weights, inputs and labels from a fixed seed. For
every penalty the file has the mean over the samples and its gradient with respect to every
parameter, by torch.autograd through the gradient inside. Layouts are those of PyTorch: kernels
`(out, in)` and `(out, in, height, width)`, images `(samples, channels, height, width)`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

SAMPLES, CLASSES, SEED = 4, 3, 0
STEP, EPSILON = 0.01, 0.1

torch.set_default_dtype(torch.float64)


def dense_network() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, CLASSES)), (5,)


def conv_network() -> tuple[nn.Module, tuple[int, ...]]:
    layers = [nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 4, 2, stride=2), nn.Tanh()]
    pooling = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *pooling, nn.Linear(4, CLASSES)), (2, 6, 6)


def losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of each sample."""
    return functional.cross_entropy(model(x), y, reduction="none")


def label_probabilities(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return torch.softmax(model(x), dim=1)[torch.arange(len(y)), y]


def output_sums(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return model(x).sum(dim=1)


def input_gradient(
    function: Callable[..., Tensor], model: nn.Module, x: Tensor, y: Tensor
) -> Tensor:
    """The gradient of each sample's value by its own input, flat: `(samples, inputs)`."""
    x = x.clone().requires_grad_()
    # Samples do not depend on each other, so the gradient of the sum has them all.
    (gradient,) = torch.autograd.grad(function(model, x, y).sum(), x, create_graph=True)
    return gradient.flatten(1)


def jacobian(of: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """The squared Frobenius norm of the Jacobian of `of(logits)`, row by row."""

    def value(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        rows = [
            input_gradient(lambda m, x, y, row=row: of(m(x))[:, row], model, x, y)
            for row in range(CLASSES)
        ]
        return torch.stack(rows).square().sum(dim=(0, 2)).mean()

    return value


def gradient_norm(
    function: Callable[..., Tensor], order: float = 2, target: float = 0.0
) -> Callable[..., Tensor]:
    """(||d function / dx|| - target)^2, `order` that of the norm."""

    def value(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        gradient = input_gradient(function, model, x, y)
        norms = torch.linalg.vector_norm(gradient, ord=order, dim=1)
        return (norms - target).square().mean()

    return value


def finite_difference(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """((loss(x + h d) - loss(x)) / h)^2 with d = gradient / ||gradient|| held constant."""
    gradient = input_gradient(losses, model, x, y).detach()
    direction = gradient / torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    moved = x + STEP * direction.reshape(x.shape)
    return ((losses(model, moved, y) - losses(model, x, y)) / STEP).square().mean()


def adversarial(direction: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """The loss at x + epsilon * direction(gradient), the shift held constant."""

    def value(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        gradient = input_gradient(losses, model, x, y).detach()
        return losses(model, x + EPSILON * direction(gradient).reshape(x.shape), y).mean()

    return value


def parameter_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(losses(model, x, y).mean(), parameters, create_graph=True)
    return sum(gradient.square().sum() for gradient in gradients)


PENALTIES: dict[str, Callable[..., Tensor]] = {
    "jacobian of the output": jacobian(lambda logits: logits),
    "jacobian of the probabilities": jacobian(lambda logits: torch.softmax(logits, dim=1)),
    "gradient of the loss": gradient_norm(losses),
    "gradient of the loss, norm 1": gradient_norm(losses, 1),
    "gradient of the loss, norm inf": gradient_norm(losses, torch.inf),
    "gradient of the loss, target 1": gradient_norm(losses, target=1.0),
    "gradient of the loss, norm 1, target 1": gradient_norm(losses, 1, 1.0),
    "gradient of the loss by differences": finite_difference,
    "gradient of the label's probability": gradient_norm(label_probabilities),
    "gradient of the output": gradient_norm(output_sums),
    "gradient of the output, target 1": gradient_norm(output_sums, target=1.0),
    "gradient by the parameters": parameter_gradient,
    "adversarial, norm inf": adversarial(torch.sign),
    "adversarial, norm 2": adversarial(lambda gradient: functional.normalize(gradient)),
}


def rounded(array: Any) -> list[Any]:
    """Twelve digits: more than any comparison needs."""
    numbers = [float(f"{number:.12g}") for number in np.ravel(array)]
    return np.reshape(numbers, np.shape(array)).tolist()


def reference(model: nn.Module, shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """The network's weights and data, and what every penalty makes of them."""

    def draw(size: tuple[int, ...]) -> Tensor:
        # Rounded, so that a short text holds the very numbers.
        return torch.tensor(rng.standard_normal(size).round(4))

    for parameter in model.parameters():
        parameter.data = draw(tuple(parameter.shape)) * 0.5
    x = draw((SAMPLES, *shape))
    y = torch.tensor(rng.integers(0, CLASSES, SAMPLES))
    names, parameters = zip(*model.named_parameters(), strict=True)
    penalties = {}
    for name, penalty in PENALTIES.items():
        value = penalty(model, x, y)
        gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
        penalties[name] = {
            "value": value.item(),
            "gradients": {n: rounded(g.numpy()) for n, g in zip(names, gradients, strict=True)},
        }
    weights = {n: p.detach().numpy().tolist() for n, p in zip(names, parameters, strict=True)}
    return {"x": x.tolist(), "y": y.tolist(), "parameters": weights, "penalties": penalties}


def main() -> None:
    rng = np.random.default_rng(SEED)
    networks = {"dense": dense_network(), "conv": conv_network()}
    content = {"torch": torch.__version__, "step": STEP, "epsilon": EPSILON}
    content["networks"] = {name: reference(*network, rng) for name, network in networks.items()}
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
