"""The architecture's rules, as functions from source text to violations.

``tests/test_architecture.py`` applies them to this repository, ``tests/unit/test_architecture_rules.py`` shows that
each of them can fail. A violation says what to do instead, since its reader is the author of the line.

A file of the three packages declares its kind at the end of the first line of its module docstring: ``[IO]``, ``[C]``
for coroutine, or nothing for pure.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

PACKAGES = ("storage_model", "target", "initiator_shim")
MAX_FUNCTION_LINES, MAX_FILE_LINES, LONG_FILE_LINES = 70, 700, 400

# Deny by default: a module that is not here does I/O, reads a clock, draws random numbers or keeps hidden state, or
# nobody has looked at it yet.
PURE_STDLIB = frozenset(
    """__future__ abc array ast base64 binascii bisect builtins collections contextlib copy csv dataclasses decimal
    difflib enum errno fractions functools graphlib hashlib heapq hmac ipaddress itertools json keyword math numbers
    operator re shlex statistics string struct textwrap tomllib types typing unicodedata urllib.parse weakref
    zlib""".split()
)
# Parts of larger modules that are pure.
PURE_NAMES = frozenset(
    {
        ("fnmatch", "fnmatchcase"),
        ("io", "BytesIO"),
        ("io", "StringIO"),
        ("pathlib", "PurePath"),
        ("pathlib", "PurePosixPath"),
        ("uuid", "UUID"),
    }
)
COROUTINE_STDLIB = PURE_STDLIB | {"logging"}
# Waiting for one another. Not sleep, timeout, wait_for or the loop itself: those read the clock, and a [C] file awaits
# injected ports only, so that a simulator can drive it.
COROUTINE_ASYNCIO = frozenset(
    """ALL_COMPLETED Barrier BoundedSemaphore CancelledError Condition Event FIRST_COMPLETED FIRST_EXCEPTION Future
    InvalidStateError Lock LifoQueue PriorityQueue Queue QueueEmpty QueueFull QueueShutDown Semaphore Task TaskGroup
    create_task current_task gather shield wait""".split()
)
PURE_THIRD_PARTY = frozenset({"construct", "crc32c", "pyscsi"})
IMPURE_THIRD_PARTY = ("pyscsi.pyiscsi", "pyscsi.pyscsi.scsi_device")
STORAGE_MODEL_THIRD_PARTY = frozenset({"construct", "crc32c"})
IMPURE_BUILTINS = frozenset({"open", "print", "input", "breakpoint", "exec", "eval", "__import__"})

# Written in two halves, so that this file does not trip over itself.
FORBIDDEN_TEXT = {
    "../" + "shared": "a path of one workplace",
    "/wo" + "rk/": "a path of one workplace",
    "/tmp/" + "team": "a path of one workplace",
    "/opt/" + "pypi": "the registry of one machine",
    "/opt/" + "wheels": "the registry of one machine",
    "pypi" + ".org": "a registry's host: pip's own configuration says where packages come from",
    "files.python" + "hosted": "a registry's host: pip's own configuration says where packages come from",
    "DESIGN" + ".md": "a page that is not part of the repository: say the rule itself",
    "PAIRS" + ".md": "a page that is not part of the repository: cite the patent's paragraph or figure",
    "TARGET" + ".md": "a page that is not part of the repository: cite the standard's clause",
    "LAB" + ".md": "a page that is not part of the repository",
}
TOP_LEVEL = frozenset({"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "scripts", "tests", *PACKAGES})


class Kind(Enum):
    """What a file may do. Each kind may import the purer ones; nothing but [IO] imports [IO]."""

    PURE = "pure"
    COROUTINE = "[C]"
    IO = "[IO]"


@dataclass(frozen=True, slots=True)
class Violation:
    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: ``import a.b`` is module ``a.b``, ``from a import b`` is module ``a`` and name ``b``."""

    module: str
    name: str | None
    line: int
    type_checking: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The modules that the import may bring in: ``from a import b`` may mean ``a.b``."""
        return (self.module,) if self.name is None else (self.module, f"{self.module}.{self.name}")


@dataclass(frozen=True)
class SourceFile:
    """One Python file; ``path`` is relative to the repository, with slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def package(self) -> str:
        return self.path.partition("/")[0]

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def kind(self) -> Kind:
        docstring = ast.get_docstring(self.tree) or ""
        first_line = docstring.partition("\n")[0].rstrip()
        return next((kind for kind in (Kind.IO, Kind.COROUTINE) if first_line.endswith(" " + kind.value)), Kind.PURE)

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(_imports(self))

    def violation(self, node: ast.AST | int, message: str) -> Violation:
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return Violation(self.path, line, message)


def _imports(source: SourceFile) -> Iterator[Import]:
    guarded = {id(node) for node in _nodes_for_type_checkers(source.tree)}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno, id(node) in guarded)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = source.module.split(".")
                depth = node.level - (1 if source.path.endswith("/__init__.py") else 0)
                module = ".".join(filter(None, [*parts[: len(parts) - depth], module]))
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, id(node) in guarded)


def _nodes_for_type_checkers(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for statement in node.body:
                yield from ast.walk(statement)


# ---- Rule 1: who may import whom -------------------------------------------------------------------------------------


def sides_are_separate(source: SourceFile) -> Iterator[Violation]:
    """``target`` and ``initiator_shim`` never import each other; ``storage_model`` imports neither."""
    strangers = {
        "storage_model": {"target", "initiator_shim", "tests", "scripts"},
        "target": {"initiator_shim", "tests", "scripts"},
        "initiator_shim": {"target", "tests", "scripts"},
    }
    for imported in source.imports:
        if imported.top in strangers.get(source.package, ()):
            yield source.violation(
                imported.line,
                f"{source.package} must not import {imported.module}. What both ends must agree on (layouts, CDBs, "
                "frames) lives in storage_model/spec/; otherwise hand the object in from outside.",
            )


def storage_model_stands_alone(source: SourceFile) -> Iterator[Violation]:
    """``storage_model`` uses the standard library, construct and crc32c, and every file of it is pure."""
    if source.package != "storage_model":
        return
    if source.kind is not Kind.PURE:
        yield source.violation(1, f"storage_model is pure throughout, so no {source.kind.value} file may live in it.")
    for imported in source.imports:
        allowed = sys.stdlib_module_names | STORAGE_MODEL_THIRD_PARTY | set(PACKAGES)
        if imported.top not in allowed:
            names = ", ".join(sorted(STORAGE_MODEL_THIRD_PARTY))
            yield source.violation(
                imported.line, f"storage_model imports only the standard library, {names}; not {imported.module}."
            )


# ---- Rules 2 to 4: what a file of each kind may touch ------------------------------------------------------------


def imports_fit_the_kind(source: SourceFile) -> Iterator[Violation]:
    """A pure or [C] file imports nothing that does I/O, reads a clock or draws random numbers."""
    if source.kind is Kind.IO:
        return
    for imported in source.imports:
        if imported.type_checking or imported.top in PACKAGES or _is_harmless(imported, source.kind):
            continue
        what = imported.module if imported.name is None else f"{imported.module}.{imported.name}"
        yield source.violation(
            imported.line,
            f"a {source.kind.value} file must not import {what}: {_remedy(imported, source.kind)}",
        )


def _is_harmless(imported: Import, kind: Kind) -> bool:
    if imported.top == "asyncio" and kind is Kind.COROUTINE:
        return imported.module == "asyncio" and (imported.name is None or imported.name in COROUTINE_ASYNCIO)
    if any(name == bad or name.startswith(bad + ".") for name in imported.candidates for bad in IMPURE_THIRD_PARTY):
        return False
    if imported.top in PURE_THIRD_PARTY or (imported.module, imported.name) in PURE_NAMES:
        return True
    allowed = COROUTINE_STDLIB if kind is Kind.COROUTINE else PURE_STDLIB
    return imported.module in allowed or imported.top in allowed or bool(allowed & set(imported.candidates))


def _remedy(imported: Import, kind: Kind) -> str:
    match imported.top:
        case "time" | "datetime":
            return "time enters as an argument `now` (seconds, float, monotonic)."
        case "random" | "secrets" | "uuid":
            return "random bytes enter as an argument, or from an injected callable."
        case "asyncio" if kind is Kind.PURE:
            return "return events and deadlines as data; waiting belongs in a [C] or [IO] file."
        case "asyncio":
            return f"[C] files await injected ports, and may use {', '.join(sorted(COROUTINE_ASYNCIO))}."
        case "pathlib":
            return "a path as a value is a str or a pathlib.PurePath; only an [IO] file opens it."
        case "logging":
            return "return what happened as an event, and let the caller log it."
    return (
        "move that part to an [IO] file and inject it through a Protocol; if this file is the thin I/O shell, end the "
        "first line of its docstring with [IO]; if the module is pure, add it to PURE_STDLIB in "
        "tests/architecture_rules.py."
    )


def asyncio_is_for_waiting_only(source: SourceFile) -> Iterator[Violation]:
    """A [C] file uses of asyncio only what makes coroutines wait for one another; ``sleep(0)`` yields to them."""
    if source.kind is not Kind.COROUTINE:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.alias) and node.name == "asyncio" and node.asname:
            yield source.violation(node, "import asyncio under its own name, so that its uses can be checked.")
    yielding = {
        id(node.func)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and ast.unparse(node) == "asyncio.sleep(0)"
    }
    for node in ast.walk(source.tree):
        if not (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "asyncio"):
            continue
        if node.attr not in COROUTINE_ASYNCIO and id(node) not in yielding:
            instead = {
                "get_running_loop": "asyncio.Future() makes a future on the running loop; clocks and timers are ports",
                "sleep": "inject a clock port, or let the [IO] shell call back at a deadline",
                "timeout": "inject a clock port, or let the [IO] shell cancel at a deadline",
                "wait_for": "inject a clock port, or let the [IO] shell cancel at a deadline",
            }.get(node.attr, "put it behind an injected port that an [IO] file implements")
            yield source.violation(node, f"a [C] file must not use asyncio.{node.attr}: {instead}.")


def only_io_imports_io(source: SourceFile, kinds: Mapping[str, Kind]) -> Iterator[Violation]:
    """A pure or [C] file that imported an [IO] file of ours could do I/O through it. ``kinds``: dotted name to kind."""
    if source.kind is Kind.IO:
        return
    for imported in source.imports:
        io_modules = [name for name in imported.candidates if kinds.get(name) is Kind.IO]
        if io_modules and not imported.type_checking:
            yield source.violation(
                imported.line,
                f"a {source.kind.value} file must not import {io_modules[0]}, which is [IO]: declare a Protocol here, "
                "and let an [IO] file pass the object in (for annotations alone: under `if TYPE_CHECKING:`).",
            )


def no_coroutines_in_pure_files(source: SourceFile) -> Iterator[Violation]:
    """No ``async def`` in a pure file, except the stubs by which a Protocol describes a port."""
    if source.kind is not Kind.PURE:
        return
    stubs = {id(stub) for stub in _protocol_stubs(source.tree)}
    functions = (node for node in ast.walk(source.tree) if isinstance(node, ast.AsyncFunctionDef))
    coroutines = sorted((node for node in functions if id(node) not in stubs), key=lambda node: node.lineno)
    if coroutines:
        names = ", ".join(node.name for node in coroutines)
        yield source.violation(
            coroutines[0],
            f"`async def` in a pure file ({names}). If they await injected ports only, end the first line of the "
            "module docstring with [C]; if this is a thin shell around I/O, with [IO]; else return events as data. "
            "(A Protocol may declare async stubs.)",
        )


def _protocol_stubs(tree: ast.Module) -> Iterator[ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        bases = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
        if "Protocol" in bases:
            for member in node.body:
                if isinstance(member, ast.AsyncFunctionDef) and all(_is_stub_statement(s) for s in member.body):
                    yield member


def _is_stub_statement(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def no_io_builtins(source: SourceFile) -> Iterator[Violation]:
    """``open`` and its like are I/O without an import."""
    if source.kind is Kind.IO:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS:
            yield source.violation(
                node,
                f"{node.func.id}() in a {source.kind.value} file: take the text or bytes as an argument; an [IO] file "
                "reads and writes.",
            )


# ---- Shape and words --------------------------------------------------------------------------------------------


def has_module_docstring(source: SourceFile) -> Iterator[Violation]:
    """Each file says what it is for; an ``__init__.py`` may be empty."""
    if source.text.strip() and not ast.get_docstring(source.tree):
        yield source.violation(
            1, "no module docstring. Its first line says what the file is, and ends with [IO] or [C] if it is one."
        )


def kind_is_spelled_right(source: SourceFile) -> Iterator[Violation]:
    """A tag in another place or spelling would silently count as pure."""
    docstring = ast.get_docstring(source.tree) or ""
    if source.kind is Kind.PURE and re.search(
        r"^\s*\[(io|c)\]|\[(io|c)\]\W*$", docstring, re.IGNORECASE | re.MULTILINE
    ):
        yield source.violation(
            1, "the kind is the end of the docstring's first line, after a space, exactly [IO] or [C], nothing behind."
        )


def fits_the_screen(source: SourceFile) -> Iterator[Violation]:
    """Functions of at most 70 lines (aim at 40), files of at most 700 (aim at 400)."""
    lines = source.text.count("\n")
    if lines > MAX_FILE_LINES:
        yield source.violation(lines, f"{lines} lines, the limit is {MAX_FILE_LINES}: this file has more than one job.")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield source.violation(
                    node, f"{node.name} has {length} lines, the limit is {MAX_FUNCTION_LINES}: name its steps."
                )


def names_say_something(source: SourceFile) -> Iterator[Violation]:
    """No ``utils.py``, ``common.py`` or ``*Manager``: names for lack of a word."""
    stem = source.path.rpartition("/")[2].removesuffix(".py")
    if re.fullmatch(r"(.*_)?(utils?|common|misc|helpers?)", stem):
        yield source.violation(1, f"{stem}.py says nothing about what is in it: name the file after its one subject.")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Manager"):
            yield source.violation(node, f"class {node.name}: name it after what it is or keeps, not 'Manager'.")


def no_constant_sleep(source: SourceFile) -> Iterator[Violation]:
    """In a test, a fixed sleep is slow on a fast machine and wrong on a slow one."""
    for node in ast.walk(source.tree):
        if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
            continue
        called = ast.unparse(node.func).rpartition(".")[2]
        if called == "sleep" and node.args[0].value != 0:
            yield source.violation(
                node,
                f"{ast.unparse(node)} in a test: await the event itself, under asyncio.timeout; where nothing can be "
                "awaited, tests/eventually.py polls a condition in bounded time.",
            )


def no_forbidden_text(path: str, text: str) -> Iterator[Violation]:
    """Nothing in the repository speaks of the place where it was written."""
    for number, line in enumerate(text.splitlines(), start=1):
        for word, reason in FORBIDDEN_TEXT.items():
            before, found, _ = line.partition(word)
            if found and not re.search(r"[\w.]$", before):
                yield Violation(path, number, f"{word!r} is {reason}.")


def top_level_is_fixed(paths: list[str]) -> Iterator[Violation]:
    """Who opens the top folder sees the architecture: the packages, tests, scripts, and the usual files."""
    for entry in sorted({path.partition("/")[0] for path in paths}):
        if entry not in TOP_LEVEL and not entry.startswith("."):
            yield Violation(entry, 1, "the top level is fixed: put it into the package, tests/ or scripts/.")


Rule = Callable[[SourceFile], Iterator[Violation]]

PACKAGE_RULES: tuple[Rule, ...] = (
    sides_are_separate,
    storage_model_stands_alone,
    imports_fit_the_kind,
    asyncio_is_for_waiting_only,
    no_coroutines_in_pure_files,
    no_io_builtins,
    has_module_docstring,
    kind_is_spelled_right,
)
EVERYWHERE_RULES: tuple[Rule, ...] = (fits_the_screen, names_say_something)
