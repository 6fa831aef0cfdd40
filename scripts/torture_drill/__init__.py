"""The torture drill: real arrays, shims and sockets under load, one fault after the other, all checked after each.

``scripts/torture`` starts it. Where to look:

    volumes.py            the pairs that are tortured: data, nothing else
    stage.py              the processes of both sites, and the cable between them
    faults.py             what is done to them, and undone
    blocks.py             self-describing blocks, and what each may contain (pure)
    writers.py            initiators that write such blocks, through the shims
    cluster_hosts.py      hosts that race for the quorum volume
    ownership_history.py  whether one owner at a time explains what they were told (pure)
    operator.py           splits, resyncs and swaps; brings every pair back to PAIR
    checks.py             copies, logs, descriptors
    campaign.py           the cycles
    bad_array.py          known-bad arrays, to show that the drill can fail
"""
