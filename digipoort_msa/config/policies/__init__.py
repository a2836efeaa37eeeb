"""The settings of policies, a table for each rule."""
