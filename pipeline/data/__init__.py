"""Anyone's rows -> canonical rows -> exact ids and masks. Runs in the image train."""
