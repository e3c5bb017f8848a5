"""The web dashboard; it talks to the service through the SDK only.

::

    cli.py              the command: settings, then the server
    server.py           pages and downloads put together
    sessions.py         who is logged in, and the SDK client that speaks for them
    model_graphs.py     graphs of models, fetched once
    latencies.py        which stored measurement is whose
    pages/              one page a file
    components/         what pages are built from
    cuts/               a cut as an address, as text, as a picture; no user interface in it
    formatting.py       numbers, sizes and times as people read them
    failures.py         errors in plain words
"""
