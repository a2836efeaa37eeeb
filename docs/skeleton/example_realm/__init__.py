"""An account store and a policy for digipoort-msa."""
