"""The subcommands of `viaduct`, each an entry point of the group `viaduct.commands`."""
