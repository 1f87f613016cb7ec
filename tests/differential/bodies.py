"""Random networks, as lines of text: from an input to a vector, or to a series or image."""

import parts

from penalties import call

# A single replica has no other replica to synchronise with.
SYNCHRONIZED = "synchronized=strategy.num_replicas_in_sync > 1, "
SIZES = {"image": (5, 5, 2), "table": (5,), "series": (5, 4), "tokens": (5,)}


def body(draft, kind, name, places):
    """Adds the lines of a network on an input.

    Args:
        draft: The program.
        kind: A key of `SIZES`.
        name: The variable that holds the input; the lines leave their result in the same.
        places: Whether the output keeps the axes of places or steps.

    Returns:
        The size of the axes between samples and channels.
    """
    builder = {"image": _image, "table": _table}.get(kind, _series)
    return builder(draft, kind, name, places)


def _layer(draft, text, extra=""):
    """A layer with kernels, maybe regularized, constrained and wrapped."""
    arguments = extra
    if "{}" in text and text.split("(")[0] in ("layers.Dense", "layers.Conv2D", "layers.Conv1D"):
        arguments += draft.of_kernel()
    return draft.wrapped(text.replace("{}", arguments), parts.kind_of(text))


def _behind(draft, name, masked=False, flat=False):
    """A normalisation and an activation, or one of them."""
    if draft.chance(0.5):
        norm = draft.choice(parts.NORMALIZATIONS[masked])
        if draft.replicas:
            norm = norm.replace("BatchNormalization(", f"BatchNormalization({SYNCHRONIZED}")
        draft.line(f"{name} = {norm}({name})")
    if draft.chance(0.8):
        label = f"inside_{len(draft.inside)}"
        activation = draft.choice(parts.ACTIVATIONS)
        draft.line(f'{name} = layers.Activation("{activation}", name="{label}")({name})')
        draft.inside.append(label)


def _image(draft, kind, name, places):
    size = 5
    for _ in range(draft.choice([1, 1, 2])):
        draft.line(f"{name} = {_layer(draft, draft.choice(parts.CONVOLUTIONS))}({name})")
        _behind(draft, name)
    if places:
        return (size, size)
    if draft.chance(0.6):
        layer = draft.choice(parts.SMALLER)
        layer = layer if "Pool" in layer else _layer(draft, layer)
        draft.line(f"{name} = {layer}({name})")
    draft.line(f"{name} = {draft.choice(parts.POOLS['image'])}({name})")
    return ()


def _table(draft, kind, name, places):
    if draft.chance(0.2):
        draft.line(f"{name} = keras.Sequential([layers.Dense(4, 'tanh'), layers.Dense(4)])({name})")
    else:
        activation = draft.choice(["", ", activation='tanh'", ", activation='softplus'"])
        draft.line(f"{name} = {_layer(draft, 'layers.Dense(4{})', activation)}({name})")
    _behind(draft, name)
    if draft.chance(0.4):
        layer = _layer(draft, "layers.Dense(4, 'tanh'{})")
        draft.line(f"{name} = layers.Add()([{name}, {layer}({name})])")
    return ()


def _series(draft, kind, name, places):
    masked = draft.masked
    if kind == "tokens":
        mask = ", mask_zero=True" if masked else ""
        text = f"layers.Embedding(7, 4{mask}, name='embedding')"
        draft.line(f"{name} = {text}({name})")
        draft.inside.append("embedding")
    elif masked:
        draft.line(f"{name} = layers.Masking()({name})")
    for _ in range(draft.choice([1, 1, 2])):
        _sequence_layer(draft, name, masked)
        _behind(draft, name, masked)
    if places:
        return (5,)
    if draft.chance(0.3):
        text = draft.choice(parts.RECURRENT[:5])
        draft.line(f"{name} = {_layer(draft, text)}({name})")
    else:
        pool = draft.choice(parts.POOLS["masked" if masked else "series"])
        draft.line(f"{name} = {pool}({name})")
    return ()


def _sequence_layer(draft, name, masked):
    # In steps without penalties PyTorch's fused kernel of attention is wrong where a mask leaves
    # out all keys of a query: by 4 times the gradient in double precision.
    kinds = [parts.RECURRENT, parts.STEPWISE]
    if not masked:
        kinds += [parts.ATTENTION, parts.SERIAL_CONVOLUTIONS]
    family = draft.choice(kinds)
    text = draft.choice(family)
    if family is parts.ATTENTION:
        draft.line(f"{name} = {draft.wrapped(text, 'other')}({name}, {name})")
        return
    if family is parts.RECURRENT:
        draft.line(f"{name} = {_layer(draft, text, ', return_sequences=True')}({name})")
        return
    draft.line(f"{name} = {_layer(draft, text)}({name})")


def head(draft, use_head, activation, units, source, target, name):
    """Adds the lines from features to an output, in one of the ways that people write it."""
    named = f'name="{name}"'
    if activation is None:
        draft.line(f"{target} = {call('layers.Dense', str(units), named)}({source})")
        return
    ways = ["argument", "argument", "layer", "operation"]
    if use_head not in ("softmax", "sigmoid"):
        ways = ["argument"]
    way = draft.choice(ways)
    if way == "argument":
        text = call("layers.Dense", str(units), f'activation="{activation}"', named)
        draft.line(f"{target} = {text}({source})")
        return
    draft.line(f"{target} = {draft.wrapped(f'layers.Dense({units})', 'dense')}({source})")
    if way == "layer":
        draft.line(f'{target} = layers.Activation("{activation}", {named})({target})')
    else:
        draft.line(f"{target} = keras.ops.{activation}({target})")
        if name != "output":
            draft.line(f"{target} = layers.Identity({named})({target})")
