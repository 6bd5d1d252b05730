"""What a user asks for: recipe.toml, strictly read."""
