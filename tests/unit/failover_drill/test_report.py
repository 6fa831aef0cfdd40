"""The timeline: plain or coloured, and the same facts as JSON."""

import io
import json
import re
from pathlib import Path

import pytest

from scripts.failover_drill.checks import Check, Race, RaceSeries
from scripts.failover_drill.node_protocol import Event, NodeSettings, decode_line, encode_line
from scripts.failover_drill.processes import ProcessFailed
from scripts.failover_drill.report import DESCRIPTIONS, OutputClosed, Timeline, Told, told_by_nodes
from scripts.failover_drill.scenario import FIGURE_7, QUORUM, Site
from scripts.failover_drill.sites import Portal

NOBODY_KNOWS = {Site.A: None, Site.B: None}


def test_colours_are_only_decoration() -> None:
    texts = []
    for colour in (False, True):
        stream = io.StringIO()
        timeline = Timeline(stream, colour)
        timeline.opening(seed=7)
        timeline.figure(FIGURE_7, NOBODY_KNOWS, [Told("host 10", "RESERVE: GOOD after 1.0 ms")])
        timeline.proof([Check("something", True, "seen")])
        texts.append(stream.getvalue())
    plain, coloured = texts
    assert "\x1b" not in plain
    assert "\x1b" in coloured
    without_times = [re.sub(r"[\d.]+ s\b", "s", re.sub(r"\x1b\[[\d;]*m", "", text)) for text in texts]
    assert without_times[0] == without_times[1]


def test_the_proof_holds_only_if_every_check_does() -> None:
    good, bad = Check("one", True, "seen"), Check("two", False, "not seen")
    assert Timeline(io.StringIO(), False).proof([good, good])
    stream = io.StringIO()
    assert not Timeline(stream, False).proof([good, bad])
    assert "FAILED  two" in stream.getvalue()
    assert "1 of 2 checks FAILED" in stream.getvalue()


def test_the_transcript_is_json_with_everything(tmp_path: Path) -> None:
    timeline = Timeline(io.StringIO(), False)
    timeline.opening(seed=7, failure="link: cut")
    timeline.figure(FIGURE_7, NOBODY_KNOWS, [Told("operator", "split")], [(QUORUM, NOBODY_KNOWS)])
    race = Race(frozenset({Site.A}), {Site.A: 0.01, Site.B: 0.02})
    timeline.races(RaceSeries.of([race]))
    timeline.proof([Check("something", True, "seen")])
    path = tmp_path / "transcript.json"
    timeline.write_json(path, [(11, {"event": "ready", "at": 5.0}), (10, {"event": "ready", "at": 4.0})])
    transcript = json.loads(path.read_text())
    assert transcript["passed"]
    assert transcript["seed"] == 7
    assert transcript["figures"][0]["told"] == [["operator", "split"]]
    assert transcript["figures"][0]["quorum"] == {"A": None, "B": None}
    assert transcript["races"]["won"] == {"site A": 1, "site B": 0}
    assert [event["host"] for event in transcript["events"]] == [10, 11]


def test_a_transcript_without_a_proof_has_not_passed(tmp_path: Path) -> None:
    path = tmp_path / "transcript.json"
    Timeline(io.StringIO(), False).write_json(path, [])
    assert not json.loads(path.read_text())["passed"]


def test_a_reader_that_went_away_is_told_apart_from_other_errors() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(OutputClosed):
        Timeline(Closed(), False).opening(seed=7)


def test_node_events_are_told_in_the_order_of_their_time() -> None:
    events = [
        (10, {"event": "joined", "at": 2.0}),
        (11, {"event": "armed", "at": 1.0}),
        (10, {"event": "ready", "at": 0.0}),
    ]
    told = told_by_nodes(events)
    assert [line.who for line in told] == ["host 11", "host 10"], "what has no description is not told"


def test_every_event_is_told_or_left_out_on_purpose() -> None:
    quiet = {Event.READY, Event.PEER_SEEN, Event.TAKEOVER_DONE}
    assert set(Event) - set(DESCRIPTIONS) == quiet


def test_lines_and_settings_survive_the_pipe() -> None:
    assert decode_line(encode_line({"order": "start", "at": 1.5})) == {"order": "start", "at": 1.5}
    with pytest.raises(ValueError, match="not a JSON object"):
        decode_line(b"[1]\n")
    settings = NodeSettings("A", ("127.0.0.1", 1), "iqn.x:y", ("127.0.0.1", 2), "/a b", 0.1, 1.0, 0.5, 0.005, 0.25)
    assert NodeSettings.from_json(settings.to_json()) == settings


def test_a_portal_is_the_first_url() -> None:
    portal = Portal.from_urls("array", ["noise", "iscsi://127.0.0.1:3260/iqn.2026-11.org.pairvol:site-a/0"])
    assert portal == Portal(("127.0.0.1", 3260), "iqn.2026-11.org.pairvol:site-a")
    with pytest.raises(ProcessFailed, match="array printed no iscsi"):
        Portal.from_urls("array", ["noise"])
