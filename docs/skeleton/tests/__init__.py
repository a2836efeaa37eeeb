"""Tests of the skeleton."""
