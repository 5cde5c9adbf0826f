"""Who may do what at the registry: one TOML file, rules without I/O, and a thin gate before the handlers."""
