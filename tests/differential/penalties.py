"""Random penalties, as text, that go with the program that they are drawn for."""

from support import catalogue

INTERVALS = (("", 6), ("interval=2", 2), ("fraction=0.5", 2), ("interval=2, fraction=0.5", 1))


def call(name, *arguments):
    """The text of a call; empty arguments are left out."""
    return f"{name}({', '.join(argument for argument in arguments if argument)})"


def penalty(draft, name):
    """The text of a penalty of this class; `None` if it does not go with the program."""
    return _DRAWN[name](draft) if name in _DRAWN else _by_default(draft, name)


def _by_default(draft, name):
    """A penalty without a function of its own here: its required arguments, and when it is due."""
    required = [f"{key}={value!r}" for key, value in catalogue.PENALTIES[name].required.items()]
    return call(f"gbr.{name}", _weight(draft, 0.05), *required, _when(draft))


def _weight(draft, size):
    size = f"{size:g}"
    if draft.chance(0.15):
        return f"keras.optimizers.schedules.ExponentialDecay({size}, 1, 0.5)"
    return size


def _when(draft):
    choices = [(text, w) for text, w in INTERVALS if not (draft.whole_batch and "frac" in text)]
    return draft.weighted(choices)


def _at(draft):
    return f'at="{draft.choice(draft.inside)}"' if draft.inside and draft.must_be_inside() else ""


def _jacobian(draft):
    few = draft.num_outputs <= 6
    draws = [] if draft.replicas else ["", "num_projections=2"]
    exact = ["num_projections=None"] if few else []
    if not draws + exact:
        return None
    projections = draft.choice(draws + exact)
    of = draft.choice(["", "", 'of="probabilities"']) if draft.has_probabilities else ""
    seed = "" if "None" in projections else f"seed={draft.whole(1000)}"
    weight = _weight(draft, 0.1)
    return call("gbr.Jacobian", weight, projections, of, seed, _at(draft), _when(draft))


def _input_gradient(draft):
    of = [] if draft.couples else ["", ""]
    if draft.has_label_probabilities:
        of.append('of="label_probability"')
    if draft.num_outputs == 1:
        of.append('of="output"')
    if not of:
        return None
    of = draft.choice(of)
    norm = draft.choice(["", "", "norm=1", 'norm="inf"'])
    target = draft.choice(["", "", "target=0.5"])
    method = draft.choice(["", "", 'method="finite_difference"'])
    step = draft.choice(["", "step=0.1"]) if method else ""
    weight = _weight(draft, 0.2 / draft.scale**2)
    where = _at(draft), _when(draft)
    return call("gbr.InputGradient", weight, norm, target, of, method, step, *where)


def _parameter_gradient(draft):
    if draft.couples:
        return None
    return call("gbr.ParameterGradient", _weight(draft, 0.05 / draft.scale**2), _when(draft))


def _adversarial(draft):
    if draft.couples:
        return None
    norm = draft.choice(["", "", "norm=2", "norm=1", "norm=None"])
    epsilon = "epsilon=0.1" if norm != "norm=None" else f"epsilon={0.1 / draft.scale:g}"
    limits = draft.choice(["", "", "data_range=(-1.5, 1.5)"])
    return call(
        "gbr.Adversarial", _weight(draft, 0.5), epsilon, norm, limits, _at(draft), _when(draft)
    )


_DRAWN = {
    "InputGradient": _input_gradient,
    "Jacobian": _jacobian,
    "ParameterGradient": _parameter_gradient,
    "Adversarial": _adversarial,
}
# The seeds give each its turn in this order.
PENALTIES = (*_DRAWN, *sorted(catalogue.PENALTIES.keys() - _DRAWN.keys()))
