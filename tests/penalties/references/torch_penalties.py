"""Values and gradients of the penalties in PyTorch, written from their formulas.

Makes torch_penalties.json beside this file. tests/penalties/test_torch_reference.py compares it
with Keras on every backend. The file was made in an environment of its own by

    pip install torch==2.13.0 numpy
    python tests/penalties/references/torch_penalties.py

Tanh networks in double precision, their weights, inputs and labels from a fixed seed. For
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


def dense_network(outputs: int = CLASSES) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, outputs))


def conv_network() -> nn.Module:
    layers = [nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 4, 2, stride=2), nn.Tanh()]
    pooling = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *pooling, nn.Linear(4, CLASSES))


# One number per sample, as a function of the output and the labels.
Function = Callable[[Tensor, Tensor], Tensor]
# The mean over the samples, as a function of the model, the inputs and the labels.
Penalty = Callable[[nn.Module, Tensor, Tensor], Tensor]
# What moves a flat input `(samples, inputs)`, as a function of its gradient.
Direction = Callable[[Tensor], Tensor]


def loss(logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits, y, reduction="none")


def label_probability(logits: Tensor, y: Tensor) -> Tensor:
    return torch.softmax(logits, dim=1)[torch.arange(len(y)), y]


def output(numbers: Tensor, y: Tensor) -> Tensor:
    return numbers[:, 0]


def input_gradient(function: Function, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of each sample's number by its own input, flat: `(samples, inputs)`."""
    if not x.requires_grad:
        x = x.clone().requires_grad_()
    # Samples do not depend on each other, so the gradient of the sum has them all.
    (gradient,) = torch.autograd.grad(function(model(x), y).sum(), x, create_graph=True)
    return gradient.flatten(1)


def gradient_norm(function: Function, order: float = 2, target: float = 0.0) -> Penalty:
    """(||d function / dx|| - target)^2, `order` that of the norm."""

    def value(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        gradient = input_gradient(function, model, x, y)
        norms = torch.linalg.vector_norm(gradient, ord=order, dim=1)
        return (norms - target).square().mean()

    return value


def jacobian(of: Callable[[Tensor], Tensor]) -> Penalty:
    """The squared Frobenius norm of the Jacobian of `of(logits)`, row by row."""

    def value(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        rows = [
            gradient_norm(lambda logits, y, row=row: of(logits)[:, row]) for row in range(CLASSES)
        ]
        return sum(row(model, x, y) for row in rows)

    return value


def inner_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """||d loss / dh||^2 with h the output of the first activation."""
    return gradient_norm(loss)(model[2:], model[:2](x), y)


def first_half(penalty: Penalty) -> Penalty:
    return lambda model, x, y: penalty(model, x[: SAMPLES // 2], y[: SAMPLES // 2])


def unit(gradient: Tensor) -> Tensor:
    return gradient / torch.linalg.vector_norm(gradient, dim=1, keepdim=True)


def largest_entry(gradient: Tensor) -> Tensor:
    chosen = functional.one_hot(gradient.abs().argmax(dim=1), gradient.shape[1])
    return chosen * gradient.sign()


def moved(direction: Direction, length: float, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """x + length * direction(gradient of the loss), the shift held constant."""
    gradient = input_gradient(loss, model, x, y).detach()
    return x + length * direction(gradient).reshape(x.shape)


def difference(order: float = 2, target: float = 0.0) -> Penalty:
    """(||g|| - target)^2 with g the gradient by the input; differentiated along v, the gradient of
    that by g: the growth of the losses over the steps v / c, times c. The root mean square of the
    steps' lengths, |2 (||g|| - target)| / c, is STEP."""

    def value(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        gradient = input_gradient(loss, model, x, y).detach().requires_grad_()
        excess = torch.linalg.vector_norm(gradient, ord=order, dim=1) - target
        values = excess.square()
        (v,) = torch.autograd.grad(values.sum(), gradient)
        scale = (4 * values.mean()).sqrt().detach() / STEP
        growth = scale * (loss(model(x + (v / scale).reshape(x.shape)), y) - loss(model(x), y))
        return ((values - growth).detach() + growth).mean()

    return value


def adversarial(direction: Direction) -> Penalty:
    """The loss at x + epsilon * direction(gradient)."""
    return lambda model, x, y: loss(model(moved(direction, EPSILON, model, x, y)), y).mean()


def parameter_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(model(x), y).mean(), parameters, create_graph=True)
    return sum(gradient.square().sum() for gradient in gradients)


OF_CLASSIFIERS: dict[str, Penalty] = {
    "Jacobian": jacobian(lambda logits: logits),
    "Jacobian of probabilities": jacobian(lambda logits: torch.softmax(logits, dim=1)),
    "InputGradient": gradient_norm(loss),
    "InputGradient, norm 1": gradient_norm(loss, 1),
    "InputGradient, norm inf": gradient_norm(loss, torch.inf),
    "InputGradient, target 1": gradient_norm(loss, target=1.0),
    "InputGradient, norm 1, target 1": gradient_norm(loss, 1, 1.0),
    "InputGradient of the label's probability": gradient_norm(label_probability),
    "InputGradient at the first layer": inner_gradient,
    "InputGradient, fraction 1/2": first_half(gradient_norm(loss)),
    "InputGradient by differences": difference(),
    "InputGradient by differences, norm 1": difference(1),
    "InputGradient by differences, norm inf": difference(torch.inf),
    "InputGradient by differences, target 1": difference(target=1.0),
    "ParameterGradient": parameter_gradient,
    "Adversarial, norm inf": adversarial(torch.sign),
    "Adversarial, norm 2": adversarial(unit),
    "Adversarial, norm 1": adversarial(largest_entry),
    "Adversarial, no norm": adversarial(lambda gradient: gradient),
}
OF_CRITICS: dict[str, Penalty] = {
    "InputGradient of the output": gradient_norm(output),
    "InputGradient of the output, target 1": gradient_norm(output, target=1.0),
}
# Name: the network, the shape of its inputs and its penalties.
NETWORKS = {
    "dense": (dense_network(), (5,), OF_CLASSIFIERS),
    "conv": (conv_network(), (2, 6, 6), OF_CLASSIFIERS),
    "critic": (dense_network(1), (5,), OF_CRITICS),
}


def rounded(array: np.ndarray) -> list[Any]:
    """Twelve digits: more than any comparison needs."""
    numbers = [float(f"{number:.12g}") for number in np.ravel(array)]
    return np.reshape(numbers, np.shape(array)).tolist()


def reference(
    model: nn.Module,
    shape: tuple[int, ...],
    penalties: dict[str, Penalty],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The weights and data of a network, and the value and gradient of every penalty."""

    def draw(size: tuple[int, ...]) -> Tensor:
        # Rounded, so that a short text holds the exact numbers.
        return torch.tensor(rng.standard_normal(size).round(4))

    for parameter in model.parameters():
        parameter.data = draw(tuple(parameter.shape)) / 2
    x = draw((SAMPLES, *shape))
    y = torch.tensor(rng.integers(0, CLASSES, SAMPLES))
    names, parameters = zip(*model.named_parameters(), strict=True)
    weights = {n: p.detach().numpy().tolist() for n, p in zip(names, parameters, strict=True)}
    results = {}
    for name, penalty in penalties.items():
        value = penalty(model, x, y)
        gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
        results[name] = {
            "value": value.item(),
            "gradients": {n: rounded(g.numpy()) for n, g in zip(names, gradients, strict=True)},
        }
    return {"x": x.tolist(), "y": y.tolist(), "parameters": weights, "penalties": results}


def main() -> None:
    rng = np.random.default_rng(SEED)
    content: dict[str, Any] = {"torch": torch.__version__, "step": STEP, "epsilon": EPSILON}
    content["networks"] = {name: reference(*parts, rng) for name, parts in NETWORKS.items()}
    Path(__file__).with_suffix(".json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
