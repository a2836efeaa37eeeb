"""The SMTP protocol, pure: octets in, events and replies out; no Twisted, clock, randomness or I/O."""
