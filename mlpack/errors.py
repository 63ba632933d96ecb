"""The one root of every error mlpack raises on purpose.

Anything that is not an :class:`MlpackError` is a bug and keeps its traceback.
New errors are defined next to the code that raises them.
"""


class MlpackError(Exception):
    """Says what happened and where; ``hint`` says what to do next.

    ``exit_status`` is what the command line returns: 1 for a refusal or a
    failure, 2 for wrong usage, 3 when a budget or a policy said no.
    """

    hint: str = ""
    exit_status: int = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        if hint:
            self.hint = hint


class UsageError(MlpackError, ValueError):
    """An argument cannot mean anything: an unknown engine, a malformed name."""

    exit_status = 2
