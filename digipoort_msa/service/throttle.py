"""What stops guessing, from the settings: for the service, and for the commands that show what it counts."""

from collections.abc import Callable
from time import monotonic

from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.config.settings import Limits


def make_throttle(limits: Limits, now: Callable[[], float] = monotonic) -> Throttle:
    """What stops guessing; see :mod:`digipoort_msa.accounts.throttle`."""
    return Throttle(
        now,
        per_account_and_source=limits.login_failures_per_account_and_address,
        per_source=limits.login_failures_per_address,
        per_network=limits.login_failures_per_network,
        per_account=limits.login_failures_per_account,
        strangers=limits.login_failures_of_strangers,
        window=limits.login_window,
        first_delay=limits.login_first_delay,
        longest_delay=limits.login_longest_delay,
        trust_for=limits.login_trust,
    )
