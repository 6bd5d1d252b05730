"""A repository of the Hugging Face hub at one commit -> its files: what alone has a network."""
