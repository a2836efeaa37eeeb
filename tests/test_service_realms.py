"""The key that nobody's SCRAM keys are made with."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.service.realms import _nobodys_key
from tests.requirements import proves


@proves("A5")
class NobodysKeyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = Path(self.mktemp()) / "state"

    def test_it_stays_the_same(self) -> None:
        key = _nobodys_key(self.state)
        self.assertEqual((len(key), _nobodys_key(self.state)), (32, key))
        self.assertEqual((self.state / "nobody.key").stat().st_mode & 0o777, 0o600)

    def test_one_that_can_be_guessed(self) -> None:
        """With an empty one, anybody could compute the salt of a name that there is not."""
        self.state.mkdir(parents=True)
        for octets in (b"", b"x" * 31):
            (self.state / "nobody.key").write_bytes(octets)
            with self.assertRaisesRegex(ValueError, "nobody.key has .* move it away"):
                _nobodys_key(self.state)
