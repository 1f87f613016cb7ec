"""Random ordinary programs: from a seed, the text of one that trains a model of Keras.

    print(program(17).source)

The text is the whole program: the backends run it, and the message of a failure shows it.
Consecutive seeds take the losses, penalties, wrappers and regularizers in turn, so that as many
seeds as there are losses have them all.
"""

import random
import textwrap
from dataclasses import dataclass

from bodies import SIZES, body, head
from losses import HEADS, LABELS, OWN, OWN_SOURCES, USES, as_written
from parts import CONSTRAINTS, OPTIMIZERS, REGULARIZERS, WRAPPERS

from penalties import PENALTIES, penalty

BATCH = 4
LOSSES = (*USES, *OWN)
# All uses of these couple samples.
WHOLE = {name for name, uses in USES.items() if all(use.couples for use in uses)}
# Programs run in double precision, but some parts are in single precision whatever they are given,
# and their error grows in the second step: under TensorFlow constants such as the root of 2 in
# `gelu`, the logarithm of 2 in a loss and the decays of Adam (1 - 0.999 is off by 1.3e-5), and the
# whole of CTC; under JAX attention. One and two replicas share all of that.
TOLERANCE = 1e-5
TOLERANCE_OF_REPLICAS = 1e-6
TOLERANCES = {"CTC": 1e-3, "adam": 1e-4, "LogCosh": 1e-4}
EAGERLY = (("False", 9), ('keras.config.backend() == "tensorflow"', 10), ("True", 1))
TURNS = {
    "penalty": (*PENALTIES, None),
    "wrapper": (*WRAPPERS, None),
    "regularizer": (*REGULARIZERS, *CONSTRAINTS, None, None, None),
}


@dataclass(frozen=True)
class Program:
    """A program and its parts.

    Attributes:
        seed: What it was drawn from.
        source: Its text. It leaves the model, the weights that it started from and the logs of
            each step in the variables `model`, `start` and `logs`.
        parts: The names of the classes of losses, penalties, wrappers, regularizers and
            constraints in it, and of what sets its tolerance.
        tolerance: The largest relative difference that is accepted.
    """

    seed: int
    source: str
    parts: frozenset
    tolerance: float


def program(seed, replicas=False):
    """The program of a seed.

    Args:
        seed: Whole number >= 0.
        replicas: Whether it must do the same on one and on several replicas (the variable
            `strategy`): without parts that replicas refuse, draw differently or count by replica.
    """
    return _Draft(seed, replicas).program()


class _Draft:
    """A program that is being drawn: its choices, and the lines so far."""

    def __init__(self, seed, replicas):
        self.seed, self.replicas = seed, replicas
        self._random = random.Random(f"program {seed}")
        self.data, self.lines, self.inside, self.parts = [], [], [], set()
        turns = {name: options[seed % len(options)] for name, options in TURNS.items()}
        self._wrapper, self._regularizer = turns["wrapper"], turns["regularizer"]
        self._first_penalty = turns["penalty"]
        self._choose_task()

    # Methods that the parts call.

    def choice(self, options):
        return self._random.choice(options)

    def chance(self, share):
        return self._random.random() < share

    def whole(self, end):
        return self._random.randrange(end)

    def weighted(self, pairs):
        options, weights = zip(*pairs, strict=True)
        return self._random.choices(options, weights)[0]

    def line(self, text):
        self.lines.append(text)

    def must_be_inside(self):
        return "tokens" in self.kinds or self.chance(0.2)

    def of_kernel(self):
        """Arguments of a layer that regularize or constrain its kernel."""
        if self._regularizer is None:
            return ""
        self.parts.add(self._regularizer)
        text = self.choice((REGULARIZERS | CONSTRAINTS)[self._regularizer])
        part = "constraint" if self._regularizer in CONSTRAINTS else "regularizer"
        return f", kernel_{part}={text}"

    def wrapped(self, text, kind):
        """A layer with kernels, in the wrapper of this program if that takes the layer."""
        fits = {"ENCConv": kind == "conv", "ENCDense": kind == "dense"}.get(self._wrapper, True)
        if self._wrapper is None or not fits or not self.chance(0.7):
            return text
        self.parts.add(self._wrapper)
        return self.choice(WRAPPERS[self._wrapper]).format(text)

    # Methods that draw the program.

    def _choose_task(self):
        name = LOSSES[self.seed % len(LOSSES)]
        if self.replicas and name in WHOLE:
            name = "two_crossentropies"
        self.uses = [(name, self._use(name))]
        first = self.uses[0][1]
        kinds = ["image", "table", "series", "tokens", "tokens and table", "image and table"]
        kinds = ["series", "tokens"] if first.steps else kinds
        if self._wrapper == "ENCConv":
            kinds = ["image", "image and table"] if not first.steps else kinds
        kind = self.choice(kinds)
        self.kinds = kind.split(" and ")
        one = len(self.kinds) == 1
        takes_places = first.labels not in ("column", "pairs") and kind != "table" and one
        self.places = first.steps or (takes_places and self.chance(0.25))
        if one and not self.places and not first.couples and self.chance(0.2):
            other = self.choice([name for name in LOSSES if name not in WHOLE])
            self.uses.append((other, self._use(other)))
        self.couples = any(use.couples for _, use in self.uses)
        self.whole_batch = self.couples or self.replicas
        self.masked = not self.replicas and not first.steps and self.chance(0.4)
        # Keras has no masks for a loss over all places of a sample.
        self.masked = self.masked and not (self.places and "AXES" in first.arguments)
        self.scale = max(use.scale for _, use in self.uses)

    def _use(self, name):
        use = OWN.get(name) or self.choice(USES[name])
        if self.replicas and (use.couples or "balancing" in use.arguments):
            return next(use for use in USES[name] if not use.couples)
        return use

    def program(self):
        inputs = self._write_inputs()
        outputs, labels, losses = self._write_outputs()
        form, given, wanted = self._structures(inputs, outputs, labels)
        penalties = self._penalties()
        settings = self._settings(losses, outputs, penalties)
        fit = self._fit(given, wanted)
        parts = self.parts | {name for name, _ in self.uses}
        tolerance = max(TOLERANCES.get(name, TOLERANCE) for name in parts)
        if self.replicas:
            tolerance = TOLERANCE_OF_REPLICAS
        source = self._rendered(form, settings, fit)
        return Program(self.seed, source, frozenset(parts), tolerance)

    def _write_inputs(self):
        """Lines of the inputs and what follows them; the variables of their data."""
        variables = []
        for kind in self.kinds:
            data, name = f"{kind}_data", kind
            shape = (BATCH, *SIZES[kind])
            if kind == "tokens":
                self.data.append(f"{data} = rng.integers(1, 7, {shape})")
                if self.masked:
                    self.data.append(f"{data}[1:, 3:] = 0")
            else:
                self.data.append(f"{data} = rng.standard_normal({shape})")
                if self.masked and kind == "series":
                    self.data.append(f"{data}[1:, 3:] = 0.0")
            dtype = ', dtype="int32"' if kind == "tokens" else ""
            self.line(f'{kind}_input = keras.Input({SIZES[kind]}, name="{kind}"{dtype})')
            self.line(f"{name} = {kind}_input")
            self.between = body(self, kind, name, self.places)
            variables.append((f"{kind}_input", data, kind))
        if len(variables) > 1:
            self.line(f"features = layers.Concatenate()([{', '.join(self.kinds)}])")
        else:
            self.line(f"features = {self.kinds[0]}")
        if "tokens" in self.kinds:
            self.inside = ["embedding"]
        return variables

    def _write_outputs(self):
        """Lines of the outputs and labels; their variables and the losses, as text."""
        outputs, labels, losses, self.num_outputs = [], [], [], 0
        for number, (name, use) in enumerate(self.uses):
            several = use.head == "softmax" or use.labels in ("classes", "one_hot", "sequences")
            units = max(3 if several or self.chance(0.5) else 1, use.units)
            label = ("output", "second")[number]
            head(self, use.head, HEADS[use.head], units, "features", label, label)
            inside = ", ".join(str(size) for size in (BATCH, *self.between))
            fields = {"shape": f"({inside},)", "inside": inside, "units": units, "batch": BATCH}
            self.data.append(f"{label}_labels = {LABELS[use.labels].format(**fields)}")
            outputs.append(label)
            labels.append(f"{label}_labels")
            losses.append(self._loss(name, use))
            places = [units, *self.between]
            size = 1
            for axis in places:
                size *= axis
            self.num_outputs += size
        return outputs, labels, losses

    def _loss(self, name, use):
        if name in OWN:
            return name
        arguments = use.arguments.replace("AXES", str(tuple(range(1, 2 + len(self.between)))))
        if not arguments and self.chance(0.7):
            return as_written(name)
        return f"keras.losses.{name}({arguments})"

    def _structures(self, inputs, outputs, labels):
        """How the model takes its inputs, gives its outputs, and `fit` gets the data."""
        way = self.choice(["list", "dict"])
        if len(inputs) == 1:
            takes, given = inputs[0][:2]
        elif way == "list":
            takes, given = (f"[{', '.join(i[k] for i in inputs)}]" for k in (0, 1))
        else:
            takes, given = (
                "{" + ", ".join(f'"{i[2]}": {i[k]}' for i in inputs) + "}" for k in (0, 1)
            )
        self.by_name = len(outputs) > 1 and self.chance(0.5)
        if len(outputs) == 1:
            gives, wanted = outputs[0], labels[0]
        elif self.by_name:
            gives, wanted = (
                "{" + ", ".join(f'"{o}": {v}' for o, v in zip(outputs, each, strict=True)) + "}"
                for each in (outputs, labels)
            )
        else:
            gives, wanted = (f"[{', '.join(each)}]" for each in (outputs, labels))
        form = self.weighted([("gbr.GBRModel", 5), ("Net", 1), ("again", 1)])
        if form == "again" and (len(inputs) > 1 or len(outputs) > 1):
            form = "gbr.GBRModel"
        if form == "again":
            self.line(f"plain = keras.Model({takes}, {gives})")
            takes, gives, form = "plain.inputs", "plain.outputs", "gbr.GBRModel"
        return f"{form}({takes}, {gives})", given, wanted

    def _penalties(self):
        """The penalties, as text: the one whose turn it is, and maybe others."""
        use = self.uses[0][1]
        self.has_probabilities = len(self.uses) == 1 and use.head in ("softmax", "logits")
        self.has_label_probabilities = (
            self.has_probabilities
            and not self.between
            and use.labels in ("classes", "column", "one_hot")
        )
        if self._first_penalty is None:
            return []
        others = [name for name in PENALTIES if name != self._first_penalty]
        more = self._random.sample(others, self.choice([0, 0, 1, 3]))
        texts = []
        for name in (self._first_penalty, *more):
            text = penalty(self, name)
            if text is not None:
                self.parts.add(name)
                texts.append(text)
        return texts

    def _settings(self, losses, outputs, penalties):
        """The arguments of `compile`, one per line."""
        if len(losses) == 1:
            loss = losses[0]
        elif self.by_name:
            loss = (
                "{" + ", ".join(f'"{o}": {v}' for o, v in zip(outputs, losses, strict=True)) + "}"
            )
        else:
            loss = f"[{', '.join(losses)}]"
        optimizers = [o for o in OPTIMIZERS if not (self.replicas and "clip" in o)]
        if "tokens" in self.kinds:
            # Under TensorFlow the others square, clip or compare the gradient of an embedding
            # before the rows of equal tokens are summed, even without a penalty.
            optimizers = [o for o in OPTIMIZERS if "sgd" in o.lower() and "clip" not in o]
        optimizer = self.choice(optimizers)
        if "adam" in optimizer.lower():
            self.parts.add("adam")
        lines = [f"optimizer={optimizer}", f"loss={loss}"]
        if len(losses) > 1 and self.chance(0.7):
            weights = '{"output": 0.5, "second": 2.0}' if self.by_name else "[0.5, 2.0]"
            lines.append(f"loss_weights={weights}")
        if penalties:
            lines.append(f"penalties=[{', '.join(penalties)}]")
        if not self.replicas:
            # JAX compiles each operation of an eager step alone, which takes long.
            lines.append(f"run_eagerly={self.weighted(EAGERLY)}")
        return lines

    def _fit(self, given, wanted):
        """The arguments of `fit` that are about the data."""
        name, use = self.uses[0]
        arguments = [given, wanted]
        weighing = self.choice(["", "samples", "classes", ""])
        if weighing == "samples" and name != "Circle":
            # Keras takes a weight for each number that the loss gives, of a place or a sample.
            of_samples = use.steps or "AXES" in use.arguments
            shape = (BATCH,) if of_samples else (BATCH, *self.between)
            self.data.append(f"weights = rng.uniform(0.5, 2, {shape})")
            arguments.append("sample_weight=weights")
        plain = use.labels == "classes" and not self.between and len(self.uses) == 1
        if weighing == "classes" and plain:
            arguments.append("class_weight={0: 0.5, 1: 1.0, 2: 2.0}")
        return ", ".join(arguments)

    def _rendered(self, form, settings, fit):
        own = [OWN_SOURCES[name] + "\n" for name, _ in self.uses if name in OWN]
        net = "class Net(gbr.GBRMixin, keras.Model):\n    pass\n\n\n" if "Net(" in form else ""
        setting = ",\n    ".join(settings)
        model = "\n".join([*self.lines, f"model = {form}", f"model.compile(\n    {setting},\n)"])
        if self.replicas:
            model = "with strategy.scope():\n" + textwrap.indent(model, "    ")
        return TEMPLATE.format(
            seed=self.seed,
            before=net + "\n".join(own),
            data="\n".join(self.data),
            model=model,
            fit=fit,
            batch=BATCH,
        )


TEMPLATE = """\
import keras
import numpy as np
from keras import layers

import keras_gbr as gbr

{before}
rng = np.random.default_rng({seed})
{data}

{model}

# Around 1 where weights start at 1, such as scales, and else around 0.
start = [
    float(np.all(weight == 1)) + rng.uniform(-0.5, 0.5, weight.shape)
    for weight in model.get_weights()
]
model.set_weights(start)
fit = {{"batch_size": {batch}, "epochs": 2, "shuffle": False, "verbose": 0}}
logs = model.fit({fit}, **fit).history
"""
