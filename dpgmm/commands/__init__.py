"""What the commands of the command line do; `dpgmm.cli` parses and calls them."""
