"""What a person's shell has, and a test's process has not."""

import os


def environment() -> dict[str, str]:
    """Ours without ``PYTHONPATH``: trial gives its workers one, and it is not for any other Python."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
