"""The command line. It imports the other packages; none of them imports it."""
