"""A tiny project for the end-to-end tests."""


def add(a, b):
    return a + b
