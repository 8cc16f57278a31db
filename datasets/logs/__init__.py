"""Device logs: read with every unit checked, nothing lost, nothing doubled; and written.

``jsonl`` is our own log, ``tegrastats`` NVIDIA's, ``columns`` says what a CSV of others means; ``importing`` brings
them into the store, ``exporting`` brings cost rows out of it, ``tables`` keeps what are no cost rows of ours.
"""
