"""The one root of every error mlpack raises on purpose.

Anything that is not an :class:`MlpackError` is a bug and keeps its traceback.
New errors are defined next to the code that raises them.
"""


def page(name: str) -> str:
    """Return the command that shows the documentation page ``name``, its path below ``docs/``.

    >>> page("reference/settings")
    'mlpack docs reference/settings'
    """
    return f"mlpack docs {name}"


class MlpackError(Exception):
    """Says what happened and where; ``hint`` says what to do next.

    ``exit_status`` is what the command line returns, by one rule: 2 if the command line itself
    cannot be right, whatever the project, the disk and the network hold
    (:class:`UsageError`); 3 if a budget or a policy refused; 1 for everything else.
    """

    hint: str = ""
    exit_status: int = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        if hint:
            self.hint = hint


class MissingFile(MlpackError):
    """A file or directory that the user named and that does not exist."""

    hint = "check the path"


class UsageError(MlpackError, ValueError):
    """An argument cannot mean anything: an unknown engine, a malformed name, two that conflict.

    What depends on a file, a project, a registry or a hub is another :class:`MlpackError`.
    """

    exit_status = 2
