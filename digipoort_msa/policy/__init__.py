"""What an account may submit: each rule is one :class:`~digipoort_msa.interfaces.IPolicy`."""
