"""The larger commands of `clew`, a file each."""
