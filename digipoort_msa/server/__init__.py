"""The public side: sockets, TLS and SASL around the pure session of :mod:`digipoort_msa.smtp`."""
