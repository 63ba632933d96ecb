"""What is packaged, as values: model versions, the recipe, the lock."""
