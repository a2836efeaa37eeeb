"""Accounts: who may submit.

A realm is a ``twisted.cred`` portal (:mod:`.realm`) over an account store (:mod:`.sql`).  Its checker
(:mod:`.checkers`) reads the account afresh, looks at its status, and verifies the credential: a password
against a slow hash off the reactor's thread (:mod:`.passwords`), a DIGEST-MD5 response against the secrets
kept for it (:mod:`.seal`).  Guessing is slowed and stopped in front of all that (:mod:`.throttle`).
:mod:`.administration` is the operator's way in.
"""
