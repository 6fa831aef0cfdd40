"""The command ``pairvol-array``: arguments, signals, run. [IO]"""

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from storage_model.errors import UserError
from target.access_config import check_luns, parse_access_words
from target.addresses import parse_address
from target.array import Array
from target.config import (
    DEFAULT_IQN,
    DEFAULT_PORTAL,
    ArrayConfig,
    check_iqn,
    parse_background_rate,
    parse_broker,
    parse_config,
    parse_volume_words,
    serial_from,
)
from target.event_loop import new_event_loop
from target.freed_memory import keep_freed_memory, look_rarely_for_cycles
from target.portal_config import parse_portal_word, replace_portals

log = logging.getLogger("pairvol.array")

MAX_DESCRIPTORS = 1 << 16
"""Files and connections that the array asks its system for: every volume and every session is one."""

_EPILOG = """\
examples:
  pairvol-array --portal 127.0.0.1:3260 --volume 256MiB
  pairvol-array --volume 64MiB,file=disk.img,block=4096 --volume 1GiB
  pairvol-array --volume 10GiB,file=data.img,full --volume file=install.iso,write-protected,removable
  pairvol-array --config scripts/examples/site-a.toml --state-dir state-a

words of a volume (what fits it in a [[volumes]] section of the file, too):
  file=PATH        in this file; without, in memory. A file that is there needs no SIZE
  block=512|4096   bytes of a logical block (512)
  thin | full      thin: space is taken as it is written, given back by UNMAP; full: taken at creation (thin)
  write-protected  read-only, also as a file: several arrays may serve it
  removable        can be ejected and loaded
  encrypted        on its medium, under a key beside it (PATH.key) that SANITIZE can replace; in memory, too
  physical=SIZE    what hosts are told to align to (as block)
  name=NAME        (volume0, volume1, ...)
  quorum           the quorum volume of a cluster

words of an access rule (with '_' for '-' and lists of addresses and luns, the keys of an [[access]] section):
  initiator=PATTERN      an iSCSI name, or a shell pattern for names (*)
  address=NETWORK        it comes from there, as 192.0.2.0/24 or ::1; repeatable (anywhere)
  lun=N                  and sees this LUN; repeatable (all)
  read-only              and may not write
  chap-user=NAME         it proves itself with CHAP, under this name,
  chap-secret-file=FILE  and the secret in a file that only its owner can read, or
  chap-secret-env=NAME   in a variable of the environment
  mutual-user=NAME, mutual-secret-file=FILE, mutual-secret-env=NAME
                         the array proves itself, too, when the initiator asks for it

Prints one iscsi:// URL per LUN, then a line "ready", and serves until SIGINT or SIGTERM; at SIGTERM, initiators are
asked to log out first. SIGHUP reads --config again: volumes that have grown, come or go, access rules, and the states
and redirections of portal groups change while the array serves.
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
        metavar="HOST:PORT[,TAG]",
        help=f"listen here, for portal group TAG (1); repeatable; port 0: a free one ({DEFAULT_PORTAL})",
    )
    parser.add_argument(
        "--volume",
        action="append",
        metavar="SIZE[,WORD...]",
        help="serve a volume, words below; repeatable, LUNs count from 0",
    )
    parser.add_argument(
        "--access",
        action="append",
        metavar="WORD[,WORD...]",
        help="who may log in, and to what, words below; repeatable, the first that fits holds (everybody, to all)",
    )
    parser.add_argument("--iqn", metavar="NAME", help=f"the target's iSCSI name ({DEFAULT_IQN})")
    parser.add_argument("--state-dir", metavar="DIR", help="metadata, and volume files with a relative path, live here")
    parser.add_argument("--copy-listen", metavar="HOST:PORT", help="with --config: listen here for the other array")
    parser.add_argument("--copy-peer", metavar="HOST:PORT", help="with --config: the other array listens here")
    parser.add_argument("--broker", metavar="mqtt://HOST:PORT", help="publish pair events to this MQTT broker")
    parser.add_argument(
        "--background-rate", metavar="SIZE", help="what SANITIZE and FORMAT UNIT write a second, at least 1MiB (128MiB)"
    )
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info", help="(info)")
    return parser.parse_args(words)


def configuration(words: list[str] | None) -> tuple[ArrayConfig, str]:
    """Configuration and log level from command-line words; raises UserError."""
    options = _arguments(words)
    config = _from_file(options.config) if options.config else _from_words(options)
    if options.config and options.volume:
        raise UserError("--volume: volumes come from the file when --config is given")
    if options.portal:
        config = _with_portals(config, options)
    if options.access:
        access = tuple(parse_access_words(text, number) for number, text in enumerate(options.access))
        check_luns(access, {volume.lun for volume in config.volumes})
        config = replace(config, access=access)
    if options.iqn:
        config = replace(config, iqn=check_iqn(options.iqn, "--iqn"))
    if options.state_dir:
        config = replace(config, state_dir=options.state_dir)
    if options.background_rate:
        rate = parse_background_rate(options.background_rate, "--background-rate")
        config = replace(config, background_rate=rate)
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


def _with_portals(config: ArrayConfig, options: argparse.Namespace) -> ArrayConfig:
    """A file's groups stay as they are, but for those that the command line names."""
    words = [parse_portal_word(text) for text in options.portal]
    portals, groups = replace_portals(config.portals if options.config else (), config.portal_groups, words)
    return replace(config, portals=portals, portal_groups=groups)


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
    names: set[str] = set()
    for volume in volumes:
        if volume.name in names:
            raise UserError(f"--volume: name={volume.name} is used twice")
        names.add(volume.name)
    portals = (parse_address(DEFAULT_PORTAL, "--portal"),)
    return ArrayConfig(iqn=iqn, serial=serial_from(iqn), portals=portals, volumes=volumes)


async def _serve(config: ArrayConfig, reread: Callable[[], ArrayConfig]) -> None:
    stopped: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    hang_up = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if not stopped.done():
            stopped.set_result(number)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, hang_up.set)
    array = Array(config)
    await array.start()
    look_rarely_for_cycles()
    reloading = asyncio.create_task(_reload_at(hang_up, array, reread))
    try:
        _announce(array.urls)
        await stopped
    finally:
        reloading.cancel()
        await asyncio.gather(reloading, return_exceptions=True)
        # Ctrl-C is for people, who wait for the prompt: initiators are asked to log out only when a service is stopped.
        await array.stop(gracefully=stopped.done() and stopped.result() is signal.SIGTERM)


async def _reload_at(hang_up: asyncio.Event, array: Array, reread: Callable[[], ArrayConfig]) -> None:
    """Each SIGHUP is one reload, after the one that is under way; several that wait are one."""
    while await hang_up.wait():
        hang_up.clear()
        try:
            await array.reload(reread())
            log.info("configuration reloaded")
        except UserError as error:
            log.error("configuration not reloaded, the old one holds: %s", error)
        except Exception as error:  # a bug of ours must not end the array
            log.error("configuration not reloaded: internal error: %s: %s", type(error).__name__, error)
            log.debug("reload", exc_info=error)


def _announce(urls: Sequence[str]) -> None:
    try:
        print(*urls, "ready", sep="\n", flush=True)
    except OSError as error:
        # What is left in Python's buffer would fail a second time at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UserError(f"standard output: {error.strerror}") from None


def _raise_descriptor_limit() -> None:
    """To what the system lets us have: the 1024 that a shell usually gives are fewer than a thousand sessions need.

    Nothing here uses ``select``, for whose sake the usual limit is so low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(words: list[str] | None = None) -> int:
    """Entry point; the exit status."""
    try:
        config, log_level = configuration(words)
        logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        _raise_descriptor_limit()
        keep_freed_memory()
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(config, lambda: configuration(words)[0]))
    except UserError as error:
        print(f"pairvol-array: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
