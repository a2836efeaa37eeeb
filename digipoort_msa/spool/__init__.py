"""The spool: stable storage for accepted messages, and the queue that works it off.

``store`` keeps a message (group commit), ``queue`` hands it to a delivery and records what became of each
recipient, ``inspection`` is the operator's view from another process.
"""
