"""What every subcommand of `viaduct` has in common, whichever program brings it: options, answers, how it ends."""
