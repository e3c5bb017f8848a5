"""The shared service: content-addressed models in, consistent cuts and pruned weights out.

``api`` answers over HTTP from solved graphs and never imports torch; ``worker`` builds graphs and
artifacts, one process per job; ``sandbox`` is where code that came with an upload runs.
"""
