"""A run over a package: decide for each weight, compress ahead, edit the program, write."""
