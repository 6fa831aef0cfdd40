"""What the reader sees: a timeline, figure by figure, then the proof; and the same as JSON."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from scripts.failover_drill.checks import Check, RaceSeries, Statuses, owner_site, owner_words
from scripts.failover_drill.node_protocol import Event, Fields
from scripts.failover_drill.scenario import NUMBERS, SITE_OF_HOST, Figure, PairedVolume, Site, shown_state
from storage_model.spec.pair_cdb import PairStatus

_WIDTH = 100
_LABEL = 16
_MILLISECOND = 1e-3

DESCRIPTIONS: dict[str, Callable[[Fields], str]] = {
    Event.RESERVE: lambda e: f"RESERVE: {e['status']} after {e['seconds'] / _MILLISECOND:.1f} ms",
    Event.JOINED: lambda e: "lost the start, joins the cluster",
    Event.MANAGED: lambda e: "wrote the cluster management data",
    Event.MOUNTED: lambda e: f"mounted volume {e['local']}, last record {e['last']}",
    Event.APPLICATION_STARTED: lambda e: f"application of volume {e['volume']} writes from record {e['first']}",
    Event.APPLICATION_STOPPED: lambda e: f"stopped the application of volume {e['volume']} at record {e['last']}",
    Event.APPLICATION_FAILED: lambda e: f"application of volume {e['volume']} failed: {e['reason']}",
    Event.ARMED: lambda e: "split the quorum pair",
    Event.PEER_LOST: lambda e: f"peer lost: {e['reason']}",
    Event.RESET: lambda e: "bus device reset (LOGICAL UNIT RESET)",
    Event.TAKEOVER: lambda e: f"pair of volume {e['volume']}: {e['step']}",
    Event.TAKEOVER_REFUSED: lambda e: f"volume {e['volume']} stays where it is: {e['reason']}",
    Event.OWNERSHIP_LOST: lambda e: f"renewal of the ownership: {e['status']}",
    Event.QUORUM_LOST: lambda e: f"quorum volume out of reach: {e['reason']}",
    Event.RETIRED: lambda e: f"left the cluster: {e['reason']}",
    Event.BROKEN: lambda e: f"BROKEN: {e['reason']}",
}
"""How each event of a node reads in the timeline; those that are not here are not shown."""


class OutputClosed(Exception):
    """Nobody reads the timeline any more. Not a PairvolError: it is no check that failed, the drill just ends."""


class Palette:
    """ANSI colours, or nothing where they would be litter."""

    def __init__(self, on: bool) -> None:
        self._on = on

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._on else text

    def heading(self, text: str) -> str:
        return self._paint("1;36", text)

    def good(self, text: str) -> str:
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        return self._paint("1;31", text)

    def break_(self, text: str) -> str:
        return self._paint("1;33", text)

    def faint(self, text: str) -> str:
        return self._paint("2", text)

    def strong(self, text: str) -> str:
        return self._paint("1", text)


@dataclass(frozen=True, slots=True)
class Told:
    """One line about somebody: ``who`` is a host, or whatever else acts."""

    who: str
    text: str


def told_by_nodes(events: Iterable[tuple[int, Fields]]) -> list[Told]:
    """Node events, each with its host, in the order in which they happened."""
    ordered = sorted(events, key=lambda pair: float(pair[1]["at"]))
    return [
        Told(f"host {host}", DESCRIPTIONS[event["event"]](event))
        for host, event in ordered
        if event["event"] in DESCRIPTIONS
    ]


class Timeline:
    """Prints as it goes, and remembers all for the transcript. Whatever prints may raise OutputClosed."""

    def __init__(self, stream: TextIO, colour: bool) -> None:
        self._stream = stream
        self._palette = Palette(colour)
        self._began = time.monotonic()
        self._figures: list[dict[str, Any]] = []
        self._checks: list[Check] = []
        self._facts: dict[str, Any] = {}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def _print(self, text: str = "") -> None:
        try:
            print(text, file=self._stream, flush=True)
        except BrokenPipeError:
            raise OutputClosed from None

    def _line(self, label: str, text: str) -> None:
        self._print(f"    {self._palette.faint(label.ljust(_LABEL))}{text}")

    # ------------------------------------------------------------------------------------------------------ the opening

    def opening(self, **facts: object) -> None:
        """What is about to happen; ``facts`` also open the transcript."""
        self._facts.update(facts)
        paint = self._palette
        self._print(paint.strong("pairvol failover drill") + ": two sites, one quorum pair, one winner")
        self._print()
        for site, data in ((Site.A, "70 P-VOL, 72 S-VOL"), (Site.B, "71 S-VOL, 73 P-VOL")):
            number = NUMBERS[site]
            quorum = "quorum 60" if site is Site.A else "quorum 61"
            text = f"host {number.host} ── shim {number.shim} ── array {number.array}    volumes {quorum}, {data}"
            self._line(f"site {site} ({number.site})", text)
        self._line("between them", "heartbeat network 50 (MQTT), remote-copy link 40 (TCP)")
        for name, value in facts.items():
            self._line(name, str(value))
        self._print()

    def progress(self, text: str) -> None:
        """Something takes a moment."""
        self._print(self._palette.faint(f"  … {text}"))

    # ------------------------------------------------------------------------------------------------------ the figures

    def figure(
        self,
        figure: Figure,
        quorum: Statuses,
        told: Iterable[Told] = (),
        data: Iterable[tuple[PairedVolume, Statuses]] = (),
        title: str = "",
    ) -> None:
        """One figure: the quorum pair at both arrays, its owner, what everybody did, data pairs where they matter."""
        lines, pairs, at = list(told), list(data), self.seconds
        title = title or figure.title
        paint = self._palette.break_ if figure.name == "Failure" else self._palette.heading
        head = f"{figure.name.ljust(11)}{title}"
        self._print(paint(head) + self._palette.faint(f"{at:.2f} s".rjust(max(_WIDTH - len(head), 9))))
        self._line("quorum 60/61", self._halves(quorum))
        owner = owner_site(quorum)
        self._line("owner", owner_words(owner))
        for pair, statuses in pairs:
            self._line(f"data {pair.title}", self._halves(statuses))
        for line in lines:
            self._line(line.who, self._verdict(line.text))
        self._print()
        self._figures.append(
            {
                "figure": figure.name,
                "title": title,
                "at": round(at, 3),
                "owner": NUMBERS[owner].host if owner else None,
                "quorum": _both_as_json(quorum),
                "data": {pair.title: _both_as_json(statuses) for pair, statuses in pairs},
                "told": [[line.who, line.text] for line in lines],
            }
        )

    def _halves(self, statuses: Statuses) -> str:
        return "   ".join(self._half(site, statuses[site]) for site in Site)

    def _half(self, site: Site, status: PairStatus | None) -> str:
        array = f"array {NUMBERS[site].array}"
        if status is None:
            return f"{array}  {self._palette.bad('down'.ljust(28))}"
        state = shown_state(status.role, status.state)
        role_and_state = self._palette.strong(f"{status.role.label:5} {state:4}")
        return f"{array}  {role_and_state}  epoch {status.epoch:<4}  "

    def _verdict(self, text: str) -> str:
        if text.startswith("RESERVE: GOOD"):
            return self._palette.good(text)
        if text.startswith("RESERVE:"):
            return self._palette.break_(text)
        return self._palette.bad(text) if text.startswith("BROKEN") else text

    # -------------------------------------------------------------------------------------------------------- the proof

    def races(self, series: RaceSeries) -> None:
        """The summary of a series of races."""
        self._facts["races"] = {
            "races": series.races,
            "won": {f"site {site}": count for site, count in series.won.items()},
            "both": series.both,
            "nobody": series.nobody,
            "refused": series.refused,
            "timed out": series.timed_out,
            "latency median ms": round(series.latency_median / _MILLISECOND, 2),
            "latency max ms": round(series.latency_max / _MILLISECOND, 2),
        }
        self._print(self._palette.heading(f"Races      {series.races} start races"))
        wins = "   ".join(f"site {site} won {count}" for site, count in series.won.items())
        self._line("winners", f"{wins}   both {series.both}   nobody {series.nobody}")
        self._line("answers", f"refused {series.refused}   timed out {series.timed_out}")
        median, longest = series.latency_median / _MILLISECOND, series.latency_max / _MILLISECOND
        self._line("latency", f"until both hosts had their answer: median {median:.1f} ms, longest {longest:.1f} ms")
        self._print()

    def proof(self, checks: Iterable[Check]) -> bool:
        """Print them; True if all held."""
        self._checks += checks
        self._print(self._palette.heading("Proof"))
        for check in self._checks:
            verdict = self._palette.good("  ok    ") if check.held else self._palette.bad("  FAILED")
            self._print(f"{verdict}  {check.name}")
            self._print(self._palette.faint(f"            {check.detail}"))
        held = all(check.held for check in self._checks)
        failed = sum(not check.held for check in self._checks)
        words = f"all {len(self._checks)} checks held" if held else f"{failed} of {len(self._checks)} checks FAILED"
        paint = self._palette.good if held else self._palette.bad
        self._print()
        self._print(paint(words) + self._palette.faint(f", {self.seconds:.1f} s"))
        return held

    def write_json(self, path: Path, events: Iterable[tuple[int, Fields]]) -> None:
        """The transcript. Raises OSError."""
        path.write_text(self.json_text(events))

    def json_text(self, events: Iterable[tuple[int, Fields]]) -> str:
        """The transcript, with its last newline."""
        ordered = sorted(events, key=lambda pair: float(pair[1]["at"]))
        transcript = {
            "version": 1,
            **self._facts,
            "seconds": round(self.seconds, 3),
            "passed": bool(self._checks) and all(check.held for check in self._checks),
            "figures": self._figures,
            "checks": [{"name": c.name, "held": c.held, "detail": c.detail} for c in self._checks],
            "events": [
                {"host": host, "site": SITE_OF_HOST[host].value, **event, "at": round(event["at"] - self._began, 4)}
                for host, event in ordered
            ],
        }
        return json.dumps(transcript, indent=1) + "\n"


def _both_as_json(statuses: Statuses) -> dict[str, Any]:
    return {site.value: _as_json(statuses[site]) for site in Site}


def _as_json(status: PairStatus | None) -> dict[str, Any] | None:
    if status is None:
        return None
    return {
        "role": status.role.label,
        "state": shown_state(status.role, status.state),
        "epoch": status.epoch,
        "owner": status.owner.initiator_name if status.owner else None,
    }
