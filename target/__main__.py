"""The command ``pairvol-array``: arguments, signals, run. [IO]"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from storage_model.errors import UserError
from target.array import Array
from target.config import (
    DEFAULT_IQN,
    DEFAULT_PORTAL,
    ArrayConfig,
    check_iqn,
    parse_address,
    parse_broker,
    parse_config,
    parse_volume_words,
    serial_from,
)

_EPILOG = """\
examples:
  pairvol-array --portal 127.0.0.1:3260 --volume 256MiB
  pairvol-array --volume 64MiB,file=disk.img,block=4096 --volume 1GiB
  pairvol-array --config scripts/examples/site-a.toml --state-dir state-a

Prints one iscsi:// URL per LUN, then a line "ready", and serves until SIGINT or SIGTERM.
Exit status: 0 ended by a signal, 2 wrong configuration or arguments.
"""


class _Parser(argparse.ArgumentParser):
    """A wrong word is one line, like every other error of the user; the usage text would bury it."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = _Parser(
        "pairvol-array",
        allow_abbrev=False,
        description="An iSCSI storage array in user space, with pair volumes mirrored to a second array.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file; the options below override what it says")
    parser.add_argument(
        "--portal",
        action="append",
        metavar="HOST:PORT",
        help=f"listen here; repeatable; port 0: a free one ({DEFAULT_PORTAL})",
    )
    parser.add_argument(
        "--volume",
        action="append",
        metavar="SIZE[,file=PATH][,block=512|4096][,name=NAME][,quorum]",
        help="serve a volume, in memory or in a sparse file; repeatable, LUNs count from 0",
    )
    parser.add_argument("--iqn", metavar="NAME", help=f"the target's iSCSI name ({DEFAULT_IQN})")
    parser.add_argument("--state-dir", metavar="DIR", help="metadata, and volume files with a relative path, live here")
    parser.add_argument("--copy-listen", metavar="HOST:PORT", help="with --config: listen here for the other array")
    parser.add_argument("--copy-peer", metavar="HOST:PORT", help="with --config: the other array listens here")
    parser.add_argument("--broker", metavar="mqtt://HOST:PORT", help="publish pair events to this MQTT broker")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info", help="(info)")
    return parser.parse_args(words)


def configuration(words: list[str] | None) -> tuple[ArrayConfig, str]:
    """Configuration and log level from command-line words; raises UserError."""
    options = _arguments(words)
    config = _from_file(options.config) if options.config else _from_words(options)
    if options.config and options.volume:
        raise UserError("--volume: volumes come from the file when --config is given")
    if options.portal:
        config = replace(config, portals=tuple(parse_address(text, "--portal") for text in options.portal))
    if options.iqn:
        config = replace(config, iqn=check_iqn(options.iqn, "--iqn"))
    if options.state_dir:
        config = replace(config, state_dir=options.state_dir)
    if options.broker:
        parse_broker(options.broker, "--broker")
        config = replace(config, broker=options.broker)
    listen, peer = options.copy_listen, options.copy_peer
    if config.remote_copy is None and (listen or peer):
        where = f"{config.source} has none" if options.config else "they need --config"
        raise UserError(f"--copy-listen, --copy-peer change a [remote_copy] section: {where}")
    if config.remote_copy is not None and listen:
        config = replace(config, remote_copy=replace(config.remote_copy, listen=parse_address(listen, "--copy-listen")))
    if config.remote_copy is not None and peer:
        config = replace(config, remote_copy=replace(config.remote_copy, peer=parse_address(peer, "--copy-peer")))
    return config, options.log_level


def _from_file(name: str) -> ArrayConfig:
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"{name}: {reason}") from None
    return parse_config(text, name)


def _from_words(options: argparse.Namespace) -> ArrayConfig:
    if not options.volume:
        raise UserError("nothing to serve: give --volume SIZE or --config FILE (see --help)")
    iqn = check_iqn(options.iqn or DEFAULT_IQN, "--iqn")
    volumes = tuple(parse_volume_words(text, lun) for lun, text in enumerate(options.volume))
    names = [volume.name for volume in volumes]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--volume: name={name} is used twice")
    portals = (parse_address(DEFAULT_PORTAL, "--portal"),)
    return ArrayConfig(iqn=iqn, serial=serial_from(iqn), portals=portals, volumes=volumes)


async def _serve(config: ArrayConfig) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    array = Array(config)
    await array.start()
    try:
        _announce(array.urls)
        await stopped.wait()
    finally:
        await array.stop()


def _announce(urls: Sequence[str]) -> None:
    try:
        print(*urls, "ready", sep="\n", flush=True)
    except OSError as error:
        # What is left in Python's buffer would fail a second time at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UserError(f"standard output: {error.strerror}") from None


def main(words: list[str] | None = None) -> int:
    """Entry point; the exit status."""
    try:
        config, log_level = configuration(words)
        logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        asyncio.run(_serve(config))
    except UserError as error:
        print(f"pairvol-array: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
