"""Hot loops on torch: every fast path has a slow reference with the same signature."""
