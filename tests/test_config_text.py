"""Writing TOML."""

import math
import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config.text import toml_document, toml_value

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | text
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


class Writing(SynchronousTestCase):
    """The inverse of tomllib."""

    @settings(deadline=None, max_examples=200)
    @given(st.dictionaries(text, values, max_size=5))
    def test_read_back(self, document: dict[str, object]) -> None:
        """Every document of TOML's own values comes back; 1.0 may come as 1, its equal."""
        self.assertEqual(tomllib.loads(toml_document(document)), document)

    def test_values(self) -> None:
        """As an operator would write them."""
        self.assertEqual(
            toml_value([300.0, 0.2, True, 'a"b\x7f', {"k": 1}]), r'[300, 0.2, true, "a\"b\u007f", {k = 1}]'
        )

    def test_not_set(self) -> None:
        """TOML has no null."""
        self.assertEqual(toml_document({"t": {"a": None}}), "[t]\n# a: not set\n")

    def test_infinite(self) -> None:
        self.assertEqual(tomllib.loads(toml_document({"a": math.inf})), {"a": math.inf})
