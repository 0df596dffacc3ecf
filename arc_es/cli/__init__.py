"""The command line: one file a sub-command. Start-up is kept fast: a sub-command's imports are its own."""
