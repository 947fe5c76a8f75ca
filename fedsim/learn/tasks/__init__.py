"""Tasks on files: one adapter per data set, each reading the files as their authors publish them."""
