"""Ways to fake green, as data: a small repository, what each way changes in it, and an honest change of the same kind."""
