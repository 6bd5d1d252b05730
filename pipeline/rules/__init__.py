"""Recipe -> rules, a file per room of the build; `plan.py` puts them in order."""
