"""What a pickle would make, without making it: names of classes, what they are called with.

A pickle is a program for a machine with a stack (pickletools). This one has the stack and none
of the power: nothing is imported or called, no object has a class, and numbers that are not
integers are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from mlpack.delta.spans import pickle_code as code
from mlpack.delta.spans.pickle_values import Global, Made, Piece
from mlpack.delta.spans.span import Damaged

MAX_INSTRUCTIONS = 1_000_000
"""In one file. A forest of a hundred trees has ten thousand."""

_Read: TypeAlias = Callable[[memoryview, int, int], object]


class Machine:
    """Runs a pickle; a reader of some library's pickles overrides the last three methods."""

    def __init__(self, view: memoryview, at: int = 0, end: int | None = None) -> None:
        self.view = view
        self.at = at
        self.left = MAX_INSTRUCTIONS
        self._end = len(view) if end is None else end
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        """What the pickle would be loaded as. Raises :class:`Damaged`."""
        while self.left:
            self.left -= 1
            name, start, self.at = code.instruction(self.view, self.at)
            if self.at > self._end:
                raise Damaged("a pickle that ends after its file")
            if name == "STOP":
                return self._pop()
            if name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _READERS:
                self._stack.append(_READERS[name](self.view, start, self.at))
            elif name in _ACTIONS:
                _ACTIONS[name](self, start, self.at)
            elif name not in _NOTHING:
                raise Damaged(f"{name} in a pickle")
        raise Damaged(f"a pickle of more than {MAX_INSTRUCTIONS} instructions")

    def make(self, what: object, args: object) -> object:
        """An object that a class or function makes of its arguments."""
        return Made(what, args)

    def build(self, made: Made, state: object) -> None:
        """An object is given its state."""
        made.states.append(state)

    def persistent(self, name: object) -> object:
        """What lies outside the pickle under a name."""
        return Made(None, name)

    # The stack

    def _pop(self) -> object:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise Damaged("a pickle that takes what is not there")
        return self._stack.pop()

    def _marked(self) -> list[object]:
        if not self._marks:
            raise Damaged("a pickle without the mark it goes back to")
        at = self._marks.pop()
        taken = self._stack[at:]
        del self._stack[at:]
        return taken

    def _top(self) -> object:
        top = self._pop()
        self._stack.append(top)
        return top

    def _made(self) -> Made:
        """The object on top. What is no such thing takes its items with it into nowhere."""
        top = self._top()
        return top if isinstance(top, Made) else Made()

    # The instructions

    def _mark(self, *_: int) -> None:
        self._marks.append(len(self._stack))

    def _drop(self, *_: int) -> None:
        if self._marks and len(self._stack) == self._marks[-1]:
            self._marks.pop()
        else:
            self._pop()

    def _drop_marked(self, *_: int) -> None:
        self._marked()

    def _twice(self, *_: int) -> None:
        self._stack.append(self._top())

    def _container(self, *_: int) -> None:
        self._stack.append(Made())

    def _list(self, *_: int) -> None:
        self._stack.append(Made(items=list(enumerate(self._marked()))))

    def _dict(self, *_: int) -> None:
        self._stack.append(Made(items=_pairs(self._marked())))

    def _append(self, *_: int) -> None:
        item = self._pop()
        items = self._made().items
        items.append((len(items), item))

    def _appends(self, *_: int) -> None:
        new = self._marked()
        items = self._made().items
        items.extend(enumerate(new, len(items)))

    def _set_item(self, *_: int) -> None:
        value, key = self._pop(), self._pop()
        self._made().items.append((key, value))

    def _set_items(self, *_: int) -> None:
        pairs = _pairs(self._marked())
        self._made().items.extend(pairs)

    def _tuple(self, *_: int) -> None:
        self._stack.append(tuple(self._marked()))

    def _tuple1(self, *_: int) -> None:
        self._stack.append((self._pop(),))

    def _tuple2(self, *_: int) -> None:
        second, first = self._pop(), self._pop()
        self._stack.append((first, second))

    def _tuple3(self, *_: int) -> None:
        third, second, first = self._pop(), self._pop(), self._pop()
        self._stack.append((first, second, third))

    def _memoize(self, *_: int) -> None:
        self._memo[len(self._memo)] = self._top()

    def _put(self, start: int, end: int) -> None:
        self._memo[code.unsigned(self.view, start, end)] = self._top()

    def _put_line(self, start: int, end: int) -> None:
        self._memo[code.decimal(self.view, start, end) or 0] = self._top()

    def _get(self, start: int, end: int) -> None:
        self._recall(code.unsigned(self.view, start, end))

    def _get_line(self, start: int, end: int) -> None:
        self._recall(code.decimal(self.view, start, end) or 0)

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise Damaged("a pickle that remembers what it never saw")
        self._stack.append(self._memo[index])

    def _global(self, *_: int) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(Global(f"{module}.{name}" if isinstance(module, str) else ""))

    def _reduce(self, *_: int) -> None:
        args, what = self._pop(), self._pop()
        self._stack.append(self.make(what, args))

    def _new_with_names(self, *_: int) -> None:
        self._pop()
        self._reduce()

    def _object(self, *_: int) -> None:
        what, *args = self._marked() or [None]
        self._stack.append(self.make(what, tuple(args)))

    def _instance(self, start: int, end: int) -> None:
        what = Global(code.path(self.view, start, end))
        self._stack.append(self.make(what, tuple(self._marked())))

    def _build(self, *_: int) -> None:
        state = self._pop()
        self.build(self._made(), state)

    def _persistent(self, *_: int) -> None:
        self._stack.append(self.persistent(self._pop()))


def _pairs(flat: list[object]) -> list[tuple[object, object]]:
    if len(flat) % 2:
        raise Damaged("a pickle with a key and no value")
    return list(zip(flat[::2], flat[1::2], strict=True))


def _global(view: memoryview, start: int, end: int) -> Global:
    return Global(code.path(view, start, end))


def _piece(view: memoryview, start: int, end: int) -> Piece:
    return Piece(start, end)


_NOTHING = {"PROTO", "FRAME", "READONLY_BUFFER"}
_CONSTANTS: Mapping[str, object] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "BINFLOAT": None,
    "FLOAT": None,
    "EXT1": None,
    "EXT2": None,
    "EXT4": None,
    "NEXT_BUFFER": None,
    "PERSID": None,
}
_READERS: Mapping[str, _Read] = {
    **dict.fromkeys(("BININT", "LONG1", "LONG4"), code.integer),
    **dict.fromkeys(("BININT1", "BININT2"), code.unsigned),
    **dict.fromkeys(("INT", "LONG"), code.decimal),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), code.text),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), code.text),
    **dict.fromkeys(("UNICODE", "STRING"), code.line),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _piece),
    "GLOBAL": _global,
}
_ACTIONS: Mapping[str, Callable[..., None]] = {
    "MARK": Machine._mark,
    "POP": Machine._drop,
    "POP_MARK": Machine._drop_marked,
    "DUP": Machine._twice,
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), Machine._container),
    **dict.fromkeys(("LIST", "FROZENSET"), Machine._list),
    "DICT": Machine._dict,
    "APPEND": Machine._append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), Machine._appends),
    "SETITEM": Machine._set_item,
    "SETITEMS": Machine._set_items,
    "TUPLE": Machine._tuple,
    "TUPLE1": Machine._tuple1,
    "TUPLE2": Machine._tuple2,
    "TUPLE3": Machine._tuple3,
    "MEMOIZE": Machine._memoize,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), Machine._put),
    "PUT": Machine._put_line,
    **dict.fromkeys(("BINGET", "LONG_BINGET"), Machine._get),
    "GET": Machine._get_line,
    "STACK_GLOBAL": Machine._global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine._reduce),
    "NEWOBJ_EX": Machine._new_with_names,
    "OBJ": Machine._object,
    "INST": Machine._instance,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
}
