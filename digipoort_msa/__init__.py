"""The Message Submission Agent for Digipoort."""

__version__ = "0.1.0"
