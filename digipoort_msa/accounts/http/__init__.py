"""The ``http`` store: accounts behind a JSON endpoint.

:mod:`.store` asks, :mod:`.endpoint` carries the question and the answer over HTTPS, :mod:`.answer` reads what
came, and :mod:`.breaker` leaves an endpoint alone that does not answer.
"""
