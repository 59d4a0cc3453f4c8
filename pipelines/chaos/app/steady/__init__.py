"""A model whose training anybody can compute again."""
