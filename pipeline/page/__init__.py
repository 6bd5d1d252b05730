"""What the project's pages are made of: one style, plots, and a policy that fetches nothing."""
