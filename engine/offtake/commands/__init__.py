"""One file a family of commands; a handler takes the arguments after its command and returns an exit code."""
