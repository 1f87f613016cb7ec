"""The errors for derivatives that a backend does not have, the same for all backends."""


class MissingDerivativeError(ValueError):
    """A value depends on a tensor through an operation that the backend cannot differentiate.

    Raised under TensorFlow. Without the error that path would be left out of a penalty, whose value
    would be wrong. Replace the operation, or stop the gradient on purpose with
    `keras.ops.stop_gradient`.

    Example:

    ```python
    model.compile("sgd", loss, penalties=[keras_gbr.Jacobian(0.01)])
    try:
        model.fit(x_train, y_train, verbose=0)
    except keras_gbr.MissingDerivativeError as error:
        print(error)  # names the operation and what to do
    ```
    """


class MissingSecondDerivativeError(ValueError):
    """A penalty differentiates an operation twice, and the backend can do so only once.

    Raised under TensorFlow and PyTorch. Without the error the model would train with a wrong
    gradient. Replace the operation, or use `InputGradient(method="finite_difference")`, which needs
    no second derivatives.

    Example:

    ```python
    penalty = keras_gbr.InputGradient(0.1)
    model.compile("sgd", loss, penalties=[penalty])
    try:
        model.fit(x_train, y_train, verbose=0)
    except keras_gbr.MissingSecondDerivativeError as error:
        print(error)  # names the layer and what to use instead
    ```
    """
