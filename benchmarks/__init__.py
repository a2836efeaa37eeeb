"""The MSA beside a peer, Postfix, in the same run: ``python -m benchmarks``; see README.rst."""
