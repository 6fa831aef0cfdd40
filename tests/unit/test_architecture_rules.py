"""Each architecture rule can fail, and lets its neighbours pass: small sources, one per case."""

from textwrap import dedent

import pytest

from tests import architecture_rules as rules
from tests.architecture_rules import Kind, Rule, SourceFile

PURE, COROUTINE, IO = '"""A subject."""\n', '"""A subject. [C]"""\n', '"""A subject. [IO]"""\n'


def messages(rule: Rule, path: str, text: str) -> list[str]:
    return [str(violation) for violation in rule(SourceFile(path, dedent(text)))]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (PURE, Kind.PURE),
        (COROUTINE, Kind.COROUTINE),
        (IO, Kind.IO),
        ('"""A subject. [IO]\n\nMore words.\n"""\n', Kind.IO),
        ('"""A subject.\n\nMore words. [IO]\n"""\n', Kind.PURE),
        ('"""A subject[IO]"""\n', Kind.PURE),
        ("", Kind.PURE),
    ],
)
def test_the_kind_is_the_end_of_the_first_line(text: str, kind: Kind) -> None:
    assert SourceFile("target/a.py", text).kind is kind


@pytest.mark.parametrize(
    ("path", "statement"),
    [
        ("target/array.py", "import initiator_shim"),
        ("target/array.py", "from initiator_shim.relay import Relay"),
        ("target/scsi/deep.py", "def f():\n    import initiator_shim.relay"),
        ("target/array.py", "if TYPE_CHECKING:\n    import initiator_shim"),
        ("target/array.py", "from tests import eventually"),
        ("initiator_shim/relay.py", "from target.scsi.task import Status"),
        ("storage_model/pair.py", "from target.scsi import task"),
        ("storage_model/pair.py", "import initiator_shim.relay as relay"),
    ],
)
def test_sides_that_meet(path: str, statement: str) -> None:
    (message,) = messages(rules.sides_are_separate, path, PURE + statement)
    assert message.startswith(f"{path}:{1 + statement.count(chr(10)) + 1}: ")
    assert "must not import" in message


@pytest.mark.parametrize(
    ("path", "statement"),
    [
        ("target/array.py", "from storage_model.volume import Volume"),
        ("initiator_shim/relay.py", "import storage_model.spec.pair_cdb"),
        ("target/array.py", "from target.scsi import task"),
        ("tests/unit/test_a.py", "import target\nimport initiator_shim"),
    ],
)
def test_sides_that_may_meet(path: str, statement: str) -> None:
    assert messages(rules.sides_are_separate, path, PURE + statement) == []


def test_relative_imports_are_resolved() -> None:
    nested = SourceFile("target/scsi/a.py", "from ..iscsi import portal\nfrom . import task\n")
    assert [imported.candidates[-1] for imported in nested.imports] == ["target.iscsi.portal", "target.scsi.task"]
    package = SourceFile("target/scsi/__init__.py", "from . import task\nfrom .. import array\n")
    assert [imported.candidates[-1] for imported in package.imports] == ["target.scsi.task", "target.array"]


@pytest.mark.parametrize("statement", ["import aiomqtt", "from pyscsi.pyscsi import scsi", "import yaml"])
def test_storage_model_with_a_foreign_library(statement: str) -> None:
    (message,) = messages(rules.storage_model_stands_alone, "storage_model/a.py", PURE + statement)
    assert "imports only the standard library, construct, crc32c" in message


def test_storage_model_with_what_it_may_have() -> None:
    text = PURE + "import struct, construct, crc32c\nfrom storage_model.spec import pair_cdb\n"
    assert messages(rules.storage_model_stands_alone, "storage_model/a.py", text) == []
    assert messages(rules.storage_model_stands_alone, "target/a.py", PURE + "import aiomqtt") == []


@pytest.mark.parametrize("head", [COROUTINE, IO])
def test_storage_model_has_pure_files_only(head: str) -> None:
    (message,) = messages(rules.storage_model_stands_alone, "storage_model/a.py", head)
    assert "pure throughout" in message


@pytest.mark.parametrize(
    ("statement", "remedy"),
    [
        ("import time", "`now`"),
        ("from datetime import datetime", "`now`"),
        ("import random", "injected callable"),
        ("from os import urandom", "[IO] file"),
        ("import socket", "[IO] file"),
        ("import threading", "[IO] file"),
        ("import sqlite3", "[IO] file"),
        ("import io", "[IO] file"),
        ("import asyncio", "waiting belongs in a [C] or [IO] file"),
        ("from pathlib import Path", "PurePath"),
        ("import logging", "let the caller log it"),
        ("import aiomqtt", "[IO] file"),
        ("from pyscsi.pyscsi.scsi_device import SCSIDevice", "[IO] file"),
        ("from pyscsi.pyscsi import scsi_device", "[IO] file"),
        ("def f():\n    import socket", "[IO] file"),
    ],
)
def test_imports_that_are_not_pure(statement: str, remedy: str) -> None:
    (message,) = messages(rules.imports_fit_the_kind, "target/a.py", PURE + statement)
    assert remedy in message


@pytest.mark.parametrize(
    "statement",
    [
        "import struct",
        "from collections.abc import Callable",
        "from urllib.parse import urlsplit",
        "from urllib import parse",
        "from pathlib import PurePath",
        "import construct as c",
        "from pyscsi.pyscsi.scsi_command import SCSICommand",
        "from target.scsi import task",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import socket",
    ],
)
def test_imports_that_are_pure(statement: str) -> None:
    assert messages(rules.imports_fit_the_kind, "target/a.py", PURE + statement) == []


@pytest.mark.parametrize(
    "statement",
    ["import time", "import socket", "from asyncio import sleep", "import asyncio.subprocess", "import aiomqtt"],
)
def test_imports_that_a_coroutine_file_may_not_have(statement: str) -> None:
    (message,) = messages(rules.imports_fit_the_kind, "target/a.py", COROUTINE + statement)
    assert "a [C] file must not import" in message


def test_imports_that_a_coroutine_file_may_have() -> None:
    text = COROUTINE + "import asyncio\nfrom asyncio import Event\nimport logging\n"
    assert messages(rules.imports_fit_the_kind, "target/a.py", text) == []


def test_an_io_file_imports_what_it_likes() -> None:
    assert messages(rules.imports_fit_the_kind, "target/a.py", IO + "import socket, time, asyncio, aiomqtt\n") == []


@pytest.mark.parametrize(
    "expression",
    [
        "await asyncio.sleep(1)",
        "await asyncio.wait_for(x, 1)",
        "asyncio.get_running_loop().time()",
        "await asyncio.open_connection('h', 1)",
        "await asyncio.to_thread(f)",
        "asyncio.timeout(1)",
    ],
)
def test_asyncio_beyond_waiting(expression: str) -> None:
    text = COROUTINE + f"import asyncio\nasync def f(x):\n    {expression}\n"
    (message,) = messages(rules.asyncio_is_for_waiting_only, "target/a.py", text)
    assert "a [C] file must not use asyncio." in message


def test_asyncio_under_another_name() -> None:
    text = COROUTINE + "import asyncio as aio\n"
    (message,) = messages(rules.asyncio_is_for_waiting_only, "target/a.py", text)
    assert "under its own name" in message


def test_asyncio_for_waiting() -> None:
    body = (
        "import asyncio\nasync def f(x):\n    await asyncio.gather(x)\n    asyncio.Lock()\n    await asyncio.sleep(0)\n"
    )
    assert messages(rules.asyncio_is_for_waiting_only, "target/a.py", COROUTINE + body) == []
    assert messages(rules.asyncio_is_for_waiting_only, "target/a.py", IO + "import asyncio\nasyncio.sleep(1)\n") == []


@pytest.mark.parametrize(
    "statement",
    ["from target.iscsi.portal import IscsiPortal", "from target.iscsi import portal", "import target.iscsi.portal"],
)
@pytest.mark.parametrize("head", [PURE, COROUTINE])
def test_io_by_way_of_our_own_file(head: str, statement: str) -> None:
    kinds = {"target.iscsi.portal": Kind.IO, "target.scsi.task": Kind.PURE}
    source = SourceFile("target/a.py", head + statement)
    (violation,) = rules.only_io_imports_io(source, kinds)
    assert "declare a Protocol here" in violation.message


def test_io_files_and_annotations_may_import_io() -> None:
    kinds = {"target.iscsi.portal": Kind.IO, "target.scsi.task": Kind.PURE}
    statement = "from target.iscsi import portal\n"
    assert not list(rules.only_io_imports_io(SourceFile("target/a.py", IO + statement), kinds))
    for_types = PURE + "if TYPE_CHECKING:\n    " + statement
    assert not list(rules.only_io_imports_io(SourceFile("target/a.py", for_types), kinds))
    assert not list(rules.only_io_imports_io(SourceFile("target/a.py", PURE + "from target.scsi import task"), kinds))


PROTOCOL = '''
class Port(Protocol):
    async def read(self) -> bytes:
        """Bytes."""
        ...
'''


def test_coroutines_in_a_pure_file() -> None:
    (message,) = messages(rules.no_coroutines_in_pure_files, "target/a.py", PURE + "async def f(): ...\n")
    assert "`async def` in a pure file (f)" in message
    method = PURE + "class Port:\n    async def read(self): ...\n"
    assert len(messages(rules.no_coroutines_in_pure_files, "target/a.py", method)) == 1


def test_a_protocol_may_declare_coroutines_but_not_write_them() -> None:
    for protocol in (PROTOCOL, PROTOCOL.replace("Protocol", "typing.Protocol"), PROTOCOL.replace("ocol)", "ocol[T])")):
        assert messages(rules.no_coroutines_in_pure_files, "target/a.py", PURE + protocol) == []
    with_code = PURE + PROTOCOL.replace("...", "return await self.more()")
    assert len(messages(rules.no_coroutines_in_pure_files, "target/a.py", with_code)) == 1


def test_coroutines_elsewhere() -> None:
    for head in (COROUTINE, IO):
        assert messages(rules.no_coroutines_in_pure_files, "target/a.py", head + "async def f(): ...\n") == []


@pytest.mark.parametrize("call", ["open('a')", "print(1)", "input()", "eval('1')"])
def test_io_without_an_import(call: str) -> None:
    for head in (PURE, COROUTINE):
        (message,) = messages(rules.no_io_builtins, "target/a.py", head + call)
        assert f"{call.partition('(')[0]}() in a" in message
    assert messages(rules.no_io_builtins, "target/a.py", IO + call) == []
    assert messages(rules.no_io_builtins, "target/a.py", PURE + "volume.open('a')") == []


def test_module_docstring() -> None:
    assert len(messages(rules.has_module_docstring, "target/a.py", "x = 1\n")) == 1
    assert messages(rules.has_module_docstring, "target/a.py", PURE) == []
    assert messages(rules.has_module_docstring, "target/__init__.py", "\n") == []


@pytest.mark.parametrize("docstring", ["[IO] A file.", "A file. [io]", "A file [C].", "A file.\n\nWords. [IO]", "A[C]"])
def test_a_misplaced_kind(docstring: str) -> None:
    assert len(messages(rules.kind_is_spelled_right, "target/a.py", f'"""{docstring}"""\n')) == 1


@pytest.mark.parametrize("docstring", ["A file. [IO]", "A file.", "Awaits what [C] files await, and more."])
def test_a_kind_in_its_place(docstring: str) -> None:
    assert messages(rules.kind_is_spelled_right, "target/a.py", f'"""{docstring}"""\n') == []


def test_sizes() -> None:
    function = "def f():\n" + "    x = 1\n" * 69
    assert messages(rules.fits_the_screen, "target/a.py", function) == []
    (too_long,) = messages(rules.fits_the_screen, "target/a.py", "async " + function + "    x = 2\n")
    assert "f has 71 lines, the limit is 70" in too_long
    assert messages(rules.fits_the_screen, "target/a.py", "x = 1\n" * 700) == []
    (too_big,) = messages(rules.fits_the_screen, "target/a.py", "x = 1\n" * 701)
    assert "701 lines, the limit is 700" in too_big


@pytest.mark.parametrize("name", ["utils", "common", "net_utils", "helpers", "misc"])
def test_file_names_that_say_nothing(name: str) -> None:
    assert len(messages(rules.names_say_something, f"target/{name}.py", "")) == 1


def test_class_names_that_say_nothing() -> None:
    assert len(messages(rules.names_say_something, "target/a.py", "class PairManager: ...")) == 1
    assert messages(rules.names_say_something, "target/task_manager.py", "class Pair: ...") == []


@pytest.mark.parametrize("call", ["time.sleep(0.1)", "asyncio.sleep(2)", "sleep(1)"])
def test_sleeping_in_tests(call: str) -> None:
    (message,) = messages(rules.no_constant_sleep, "tests/a.py", call)
    assert f"{call} in a test" in message


@pytest.mark.parametrize("call", ["asyncio.sleep(0)", "sleep(interval)", "clock.advance(1)"])
def test_not_sleeping_in_tests(call: str) -> None:
    assert messages(rules.no_constant_sleep, "tests/a.py", call) == []


@pytest.mark.parametrize("word", sorted(rules.FORBIDDEN_TEXT))
def test_forbidden_text(word: str) -> None:
    (violation,) = rules.no_forbidden_text("README.md", f"fine\nsee {word} for more\n")
    assert violation.line == 2
    assert repr(word) in violation.message


def test_text_that_only_resembles_it() -> None:
    assert not list(rules.no_forbidden_text("README.md", "a/frame" + "work/x and net" + "/work" + "s\n"))


def test_top_level() -> None:
    kept = ["README.md", "target/a.py", "tests/b.py", ".ci/run", ".gitignore"]
    assert not list(rules.top_level_is_fixed(kept))
    (violation,) = rules.top_level_is_fixed([*kept, "docs/a.md", "docs/b.md"])
    assert violation.path == "docs"
