"""The settings of account stores, a table each."""
