from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.framing import framed

PARTS = st.lists(st.text(alphabet="a:,1\0é", max_size=4), max_size=4)


class FramedTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=300)
    @given(PARTS, PARTS)
    def test_different_lists_never_meet(self, one, other):
        self.assertEqual(framed(*one) == framed(*other), one == other)

    def test_the_cut_matters(self):
        self.assertNotEqual(framed("a", "bc"), framed("ab", "c"))
