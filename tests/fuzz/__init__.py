"""Fuzzing of every decoder and of the way from a device's reply to the fold.

``targets`` says what is fuzzed and what must hold, ``mutate`` makes inputs in pure Python,
``harness`` is one target under atheris, ``campaign`` (``make fuzz``) all of them for a while.
``corpus/TARGET`` holds the inputs that earlier runs found worth keeping.
"""
