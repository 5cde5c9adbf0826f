"""The command line: one file per family of commands; roles and shells are put together here."""
