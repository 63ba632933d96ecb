"""Reads what a pickle would make without making it: names of classes and their arguments.

A pickle is a program for a stack machine (*PEP 3154*). ``pickletools`` reads its instructions; this
machine has the stack only: nothing is imported or called, and no object has a class.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from mlpack.tensor_patch.spans.binary import ViewFile
from mlpack.tensor_patch.spans.pickle_values import ByteRange, Global, PickledObject
from mlpack.tensor_patch.spans.span import MAX_NAME, Damaged

MAX_INSTRUCTIONS = 1_000_000
"""In one file. A forest of a hundred trees has ten thousand."""
_LARGE = 1 << 63


class Machine:
    """Runs a pickle. A reader of some library's pickles overrides the last three methods."""

    def __init__(self, view: memoryview, at: int = 0, end: int | None = None) -> None:
        self.view = view if end is None else view[:end]
        self.file = ViewFile(self.view)
        self.file.seek(at)
        self.left = MAX_INSTRUCTIONS
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[object, object] = {}

    def run(self) -> object:
        """Return what the pickle would be loaded as. Raises :class:`Damaged`."""
        try:
            with warnings.catch_warnings():
                # Of escapes in strings that only a damaged file has.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._run()
        except (ValueError, AttributeError) as error:
            raise Damaged(f"not a pickle: {error}") from None
        return self._pop()

    def _run(self) -> None:
        for opcode, argument, _ in pickletools.genops(cast(Any, self.file)):
            self.left -= 1
            if self.left < 0:
                raise Damaged(f"a pickle of more than {MAX_INSTRUCTIONS} instructions")
            self._do(opcode.name, argument)

    def make(self, function: object, args: object) -> object:
        """Return the value for a call of a class or function."""
        return PickledObject(function, args)

    def build(self, made: PickledObject, state: object) -> None:
        """Give an object its state."""
        made.states.append(state)

    def persistent(self, name: object) -> object:
        """Return the value for an object outside the pickle."""
        return PickledObject(None, name)

    def _do(self, name: str, argument: object) -> None:
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _PUSHES:
            self._stack.append(_PUSHES[name](self))
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif isinstance(argument, int | str):
            self._stack.append(_short(argument))
        elif isinstance(argument, bytes | memoryview | bytearray):
            end = self.file.tell()
            self._stack.append(ByteRange(end - len(argument), end))
        else:
            raise Damaged(f"{name} in a pickle")

    def _pop(self) -> object:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise Damaged("a pickle that pops from an empty stack")
        return self._stack.pop()

    def _popped(self, count: int) -> tuple[object, ...]:
        return tuple([self._pop() for _ in range(count)][::-1])

    def _marked(self) -> list[object]:
        """Pop what is above the last mark, and the mark."""
        if not self._marks:
            raise Damaged("a pickle without a mark to pop to")
        at = self._marks.pop()
        taken = self._stack[at:]
        del self._stack[at:]
        return taken

    def _drop(self, _: object) -> None:
        if self._marks and len(self._stack) == self._marks[-1]:
            self._marks.pop()
        else:
            self._pop()

    def _top(self) -> object:
        self._stack.append(self._pop())
        return self._stack[-1]

    def _top_object(self) -> PickledObject:
        """Return the object on top, or one that is dropped with the items it is given."""
        top = self._top()
        return top if isinstance(top, PickledObject) else PickledObject()

    def _extend(self, new: Iterable[object]) -> None:
        items = self._top_object().items
        items.extend(enumerate(new, len(items)))

    def _update(self, flat: Iterable[object]) -> None:
        pairs = _pairs(list(flat))
        self._top_object().items.extend(pairs)

    def _remember(self, index: object) -> None:
        self._memo[index] = self._top()

    def _recall(self, index: object) -> None:
        if index not in self._memo:
            raise Damaged("a pickle that recalls what it never stored")
        self._stack.append(self._memo[index])

    def _global(self) -> Global:
        module, name = self._popped(2)
        return Global(f"{module}.{name}" if isinstance(module, str) else "")

    def _call(self, args: object) -> object:
        return self.make(self._pop(), args)

    def _build(self, _: object) -> None:
        state = self._pop()
        self.build(self._top_object(), state)

    def _call_marked(self) -> object:
        function, *args = self._marked() or [None]
        return self.make(function, tuple(args))


def _pairs(flat: list[object]) -> list[tuple[object, object]]:
    if len(flat) % 2:
        raise Damaged("a pickle with a key and no value")
    return list(zip(flat[::2], flat[1::2], strict=True))


def _short(argument: int | str) -> int | str | None:
    """Cut a text; drop an integer that cannot be a size."""
    if isinstance(argument, str):
        return argument[:MAX_NAME]
    return argument if abs(argument) < _LARGE else None


def _path(argument: object) -> Global:
    """Return the class or function that an argument names: a module and a name in it."""
    return Global(".".join(str(argument).split(" ")[:2])[:MAX_NAME])


_UNKNOWN = ("NONE", "BINFLOAT", "FLOAT", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "PERSID")
_CONSTANTS: Mapping[str, object] = {
    **dict.fromkeys(_UNKNOWN),
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}
_PUSHES: Mapping[str, Callable[[Machine], object]] = {
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), lambda _: PickledObject()),
    **dict.fromkeys(
        ("LIST", "FROZENSET"), lambda on: PickledObject(items=[*enumerate(on._marked())])
    ),
    "DICT": lambda on: PickledObject(items=_pairs(on._marked())),
    "DUP": Machine._top,
    "TUPLE": lambda on: tuple(on._marked()),
    "TUPLE1": lambda on: on._popped(1),
    "TUPLE2": lambda on: on._popped(2),
    "TUPLE3": lambda on: on._popped(3),
    "STACK_GLOBAL": Machine._global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda on: on._call(on._pop())),
    "NEWOBJ_EX": lambda on: on._call(on._popped(2)[0]),
    "OBJ": Machine._call_marked,
    "BINPERSID": lambda on: on.persistent(on._pop()),
}
"""What instructions push."""
_ACTIONS: Mapping[str, Callable[[Machine, object], object]] = {
    **dict.fromkeys(("PROTO", "FRAME", "READONLY_BUFFER", "STOP"), lambda *_: None),
    "GLOBAL": lambda on, argument: on._stack.append(_path(argument)),
    "INST": lambda on, argument: on._stack.append(on.make(_path(argument), tuple(on._marked()))),
    "MARK": lambda on, _: on._marks.append(len(on._stack)),
    "POP": Machine._drop,
    "POP_MARK": lambda on, _: on._marked(),
    "APPEND": lambda on, _: on._extend(on._popped(1)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda on, _: on._extend(on._marked())),
    "SETITEM": lambda on, _: on._update(on._popped(2)),
    "SETITEMS": lambda on, _: on._update(on._marked()),
    "MEMOIZE": lambda on, _: on._remember(len(on._memo)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine._remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine._recall),
    "BUILD": Machine._build,
}
