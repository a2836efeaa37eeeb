"""The MSA's tests: one module per source module, and the conversations of whole programs."""
