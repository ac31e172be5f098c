"""The `keras-apa` command, one module a sub-command. Nothing outside imports it."""
