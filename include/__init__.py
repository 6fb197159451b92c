"""Airlock: a goal in plain language goes in, a verified merge comes out."""
