"""libiscsi's own test suite (``iscsi-test-cu``) against an array of every kind of volume.

``scripts/test-suites`` starts it. Where to look:

    kinds.py          the kinds of volumes, and what of the suite is run on each: data, nothing else
    suite_output.py   what the tool printed, to one outcome per test
    matrix.py         the outcomes of all kinds, as a table and as a verdict
    suite_run.py      arrays and tools as processes
    __main__.py       the command line
"""
