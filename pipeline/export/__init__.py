"""What others need to run, judge and trust a model: a folder that is complete in itself."""
