"""What every command line shares: help, words and tables, how it runs and ends, its child processes."""
