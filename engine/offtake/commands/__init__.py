"""One file a family of commands. A handler takes the arguments after the command and returns the exit code."""
