"""The failover drill: two arrays, two shims, two cluster nodes and a broker, taken through Figures 7-13 of the patent.

``scripts/demo`` starts it. Where to look:

    scenario.py       the sites, the volumes, the figures, and what must come out of each failure: data, nothing else
    drill.py          the conductor, one method per figure
    sites.py          the processes of one site, and the conductor's own view of its array
    cluster_node.py   a cluster node: a program of its own, like the other processes
    node_protocol.py  what the conductor and a node say to each other
    checks.py         the proof: pure functions from what was seen to checks that hold or do not
    report.py         what the reader sees, and the JSON transcript
"""
