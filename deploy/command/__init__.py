"""The commands of `clew`, a file each."""
