"""The subcommands of `vavl`, a module each."""
