"""The content of a user's own code: all that a learner reaches in files and cells that are not clkit's.

A method of clkit is known by the REVISION in its file. Own code has none, so what it consists of enters the
key of a result: functions, classes and their bases, the values of globals, closures and defaults that they
read, and own modules that they import, wherever these stand, step by step. What counts is the compiled code
that would run, not its text: comments and layout do not matter, an edited cell counts once it is executed,
and an edited file once it is imported again. Code of clkit is only searched for own code that was entered
there, such as a network in a registry, and code of installed packages is known by its name.

Needs no torch.
"""

from __future__ import annotations

import builtins
import dis
import functools
import hashlib
import importlib.machinery
import importlib.util
import re
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
_DYNAMIC = (eval, exec, compile, globals, __import__, importlib.import_module)  # may lead anywhere
_BETWEEN = ("EXTENDED_ARG", "CACHE", "PRECALL", "PUSH_NULL")  # instructions that mean nothing here
_OF_CLASSES = set(  # attributes of a class that say nothing about what it does
    "__module__ __doc__ __dict__ __weakref__ __annotations__ __annotate__ __annotate_func__ __firstlineno__ "
    "__annotations_cache__ __static_attributes__ __qualname__ __abstractmethods__ __dataclass_fields__ "
    "__parameters__ __type_params__ __slots__ __slotnames__ _abc_impl".split()
)
_Read = tuple[str, tuple[str, ...]]  # a global name, and the attributes that are taken from it one by one


class UnknownCodeError(Exception):
    """Own code that leads to code which cannot be known."""


def own_code(*roots: Any, names: Iterable[Any] = ()) -> str | None:
    """sha256 (hex) of the own code that functions and classes lead to; "" if there is none.

    None if it cannot be known, because own code uses eval or the like, or is a compiled module.
    names: the settings of a run; in a dictionary of clkit, only the own entries that they name count.
    """
    walk = _Walk({name for name in names if isinstance(name, str)})
    try:
        return walk.digest(roots)
    except UnknownCodeError:
        return None


# ---- whose a module is


def _owner(module: str | None) -> str:
    """ "clkit", "installed" (with Python or as a package) or "own"."""
    module = module or ""
    if module.partition(".")[0] == "clkit":
        return "clkit"
    there = sys.modules.get(module)
    file = getattr(there, "__file__", None)
    if module == "__main__" or there is None:
        return "installed" if module.startswith("namedtuple_") else "own"
    if file is None:  # built into Python, or made by hand
        return "installed" if getattr(there, "__spec__", None) is not None else "own"
    return "installed" if _is_installed(file) else "own"


@functools.cache
def _is_installed(file: str) -> bool:
    path = Path(file).resolve()
    python = Path(sysconfig.get_path("stdlib")).resolve()
    return python in path.parents or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _is_compiled(module: str | None) -> bool:
    """Whether a module is own machine code."""
    file = getattr(sys.modules.get(module or ""), "__file__", None) or ""
    return file.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)) and _owner(module) == "own"


# ---- what compiled code reads


def _constants(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and all those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _constants(constant)


@functools.cache
def _reads(code: types.CodeType) -> tuple[tuple[_Read, ...], tuple[tuple[str, int, tuple[str, ...]], ...]]:
    """(globals that code reads, with the attributes taken from them; its imports: module, level, names)."""
    names, imports = [], []
    for part in _constants(code):
        steps = [step for step in dis.get_instructions(part) if step.opname not in _BETWEEN]
        for i, step in enumerate(steps):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                attributes = []
                while steps[i + 1].opname in ("LOAD_ATTR", "LOAD_METHOD"):
                    i += 1
                    attributes.append(steps[i].argval)
                names.append((step.argval, tuple(attributes)))
            elif step.opname == "IMPORT_NAME":
                imports.append((step.argval, steps[i - 2].argval, tuple(steps[i - 1].argval or ())))
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(imports))


def _instructions(code: types.CodeType) -> tuple:
    """All of a code object that decides what it does, as plain values."""
    return (
        code.co_code.hex(),
        getattr(code, "co_exceptiontable", b"").hex(),
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
        tuple(map(_constant, code.co_consts)),
    )


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _instructions(value)
    if isinstance(value, frozenset):  # in no fixed order
        return "frozenset", sorted(map(repr, value))
    return tuple(map(_constant, value)) if isinstance(value, tuple) else repr(value)


# ---- the walk


class _Walk:
    """Follows references from object to object; own objects are numbered in the order of their appearance."""

    def __init__(self, names: set[str]) -> None:
        self.names, self.hash = names, hashlib.sha256()
        self.numbers: dict[int, int] = {}  # id of an own object -> its number
        self.kept: dict[int, Any] = {}  # id -> object, so that no id is used twice
        self.own: deque = deque()  # to be described
        self.ours: deque = deque()  # of clkit, or around own code: to be searched

    def digest(self, roots: Iterable[Any]) -> str:
        for root in roots:
            if _owner(_inner(root).__module__) == "own":
                self.hash.update(self.ref(root).encode())
            else:
                self._enter(_inner(root))
        while self.own or self.ours:  # own code first, so that clkit does not change its numbers
            if self.own:
                self.hash.update(repr(self._described(self.own.popleft())).encode())
            else:
                self._search(self.ours.popleft())
        return self.hash.hexdigest() if self.numbers else ""

    def ref(self, value: Any) -> str:
        """How a description speaks of a value: by its content, its name or its number."""
        if type(value) in _PLAIN:
            return repr(value)
        owner, name = "own", ""
        if isinstance(value, types.ModuleType):
            owner, name = _owner(value.__name__), value.__name__
        elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            owner, name = _owner(value.__module__ or "builtins"), f"{value.__module__}.{value.__qualname__}"
        new = id(value) not in self.kept
        self.kept[id(value)] = value
        if owner == "own":
            if new:
                self.numbers[id(value)] = len(self.numbers)
                self.own.append(value)
            return f"#{self.numbers[id(value)]}"
        if new and (isinstance(value, types.FunctionType) or (owner == "clkit" and isinstance(value, type))):
            self.ours.append(value)
        revision = getattr(sys.modules.get(getattr(value, "__module__", None)), "REVISION", "")
        return f"{name} {revision}" if owner == "clkit" else name

    def refs(self, values: Iterable[Any]) -> list[str]:
        return [self.ref(value) for value in values]

    def items(self, values: Any) -> list[tuple[str, str]]:
        """The items of a dictionary, in an order that does not depend on when they were entered."""
        return [(key, self.ref(v)) for key, v in sorted((_said(k), v) for k, v in values.items())]

    # -- clkit: only a search

    def _search(self, value):
        """Look for own code in a class or function of clkit, and in the closure of a package's wrapper."""
        if isinstance(value, type):
            found = [*value.__bases__, *vars(value).values()]
        else:
            found = _contents(value)
            if _owner(value.__module__) == "clkit":
                found += self._globals(value)
        for each in found:
            self._enter(each)

    def _enter(self, value):
        if isinstance(value, dict):
            for key, entry in value.items():
                if isinstance(entry, functools.partial) or _owner(getattr(entry, "__module__", "")) == "own":
                    if key in self.names and callable(entry):
                        self.ref(entry)
                else:
                    self._enter(entry)
        elif isinstance(value, type | types.FunctionType):
            self.ref(value)
        elif not isinstance(value, types.ModuleType):
            for inner in ("__func__", "fget", "__wrapped__"):  # of a method, a property, a cached function
                if isinstance(found := getattr(value, inner, None), types.FunctionType):
                    self.ref(found)

    # -- own code: its description

    def _described(self, value) -> tuple:
        kind = type(value).__name__
        if _is_compiled(getattr(value, "__module__", None)):
            raise UnknownCodeError(kind)
        if isinstance(value, types.ModuleType):
            if _is_compiled(value.__name__):
                raise UnknownCodeError(value.__name__)
            return kind, self.items({k: v for k, v in vars(value).items() if not k.startswith("__")})
        if isinstance(value, type):
            facts = {k: v for k, v in vars(value).items() if k not in _OF_CLASSES and not _is_slot(v)}
            return kind, value.__name__, self.refs([type(value), *value.__bases__]), self.items(facts)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, functools.partial):
            return kind, self.refs((value.func, *value.args)), self.items(value.keywords)
        if isinstance(value, dict | types.MappingProxyType):
            return kind, self.items(value)
        if isinstance(value, list | tuple | deque):
            return kind, self.refs(value)
        if isinstance(value, set | frozenset):
            return kind, sorted(map(_said, value))
        for parts in _PARTS:
            if isinstance(value, parts[0]):
                return kind, self.refs(getattr(value, part) for part in parts[1:])
        return self._instance(value)

    def _function(self, f) -> tuple:
        defaults = self.refs(f.__defaults__ or ()), self.items(f.__kwdefaults__ or {})
        read = self.refs([*_contents(f), *self._globals(f)])
        return "function", _instructions(f.__code__), defaults, read, self.items(vars(f))

    def _globals(self, f) -> Iterator[Any]:
        """The values that a function reads by name, in its own module and in those that it imports."""
        names, imports = _reads(f.__code__)
        own = _owner(f.__module__) == "own"
        for name, attributes in names:
            value = f.__globals__.get(name, _MISSING)
            if value is _MISSING:
                value = getattr(builtins, name, _MISSING)
            for attribute in attributes:
                if not isinstance(value, types.ModuleType):
                    break
                value = vars(value).get(attribute, _MISSING)
            if own and any(value is dynamic for dynamic in _DYNAMIC):
                raise UnknownCodeError(name)
            if value is not _MISSING:
                yield value
        for name, level, wanted in imports if own else ():
            yield from _imported("." * level + name, f.__globals__.get("__package__"), wanted)

    def _instance(self, value) -> tuple:
        cls, inside = type(value), getattr(value, "__dict__", {})
        name = f"{cls.__module__}.{cls.__qualname__}"
        if hasattr(value, "__wrapped__"):
            return name, self.ref(value.__wrapped__)
        if (content := _array(value)) is not None:
            return name, content
        if _owner(cls.__module__) == "own":
            slots = {k: getattr(value, k) for c in cls.__mro__ for k in _slots(c) if hasattr(value, k)}
            return "instance", self.ref(cls), self.items({**slots, **inside})
        for content in ("state_dict", "checksum"):  # of a network or an optimizer, of an ImageSet
            if callable(getattr(value, content, None)):
                return name, _said(value), self.ref(getattr(value, content)())
        if callable(value) or hasattr(value, "__dataclass_fields__"):
            return name, self.items(inside)
        return name, _said(value)


_MISSING = object()
_PARTS = (
    (types.MethodType, "__func__", "__self__"),
    (staticmethod, "__func__"),
    (classmethod, "__func__"),
    (property, "fget", "fset", "fdel"),
    (functools.cached_property, "func"),
)


def _inner(value):
    """The function in a partial or a method."""
    while isinstance(value, functools.partial | types.MethodType):
        value = value.func if isinstance(value, functools.partial) else value.__func__
    return value


def _contents(f) -> list:
    """What the closure of a function holds."""
    return [cell.cell_contents for cell in f.__closure__ or () if cell != types.CellType()]


def _imported(name, package, wanted) -> Iterator[Any]:
    """What an import inside an own function leads to: the names it asks for, or else the module."""
    try:
        name = importlib.util.resolve_name(name, package)
        spec = importlib.util.find_spec(name.partition(".")[0])
        if spec.origin in ("built-in", "frozen") or (spec.origin and _is_installed(spec.origin)):
            return
        module = importlib.import_module(name)
        for part in wanted:
            if not hasattr(module, part):
                importlib.import_module(f"{name}.{part}")
    except Exception:  # it fails in its place, with its own message
        return
    yield from (getattr(module, part) for part in wanted) if wanted else (module,)


def _is_slot(value) -> bool:
    return isinstance(value, types.MemberDescriptorType)


def _slots(cls) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _array(value) -> tuple | None:
    """The content of a tensor or an array of numbers; None for another object."""
    if callable(getattr(value, "detach", None)) and hasattr(value, "is_sparse"):  # a tensor
        flat = value.detach().cpu().to_dense().contiguous().reshape(-1)
        raw = flat.view(sys.modules["torch"].uint8).numpy().tobytes()
    elif type(value).__module__ == "numpy" and hasattr(value, "tobytes") and value.dtype.kind != "O":
        raw = value.tobytes()
    else:
        return None
    return str(value.dtype), tuple(value.shape), hashlib.sha256(raw).hexdigest()


def _said(value) -> str:
    """The repr of an object without addresses in memory."""
    try:
        return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))
    except Exception:  # of a class that somebody else wrote
        return type(value).__name__
