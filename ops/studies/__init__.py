"""Studies of the system on the real data: error rates of the gates and of the drift monitor, and a year of the loop."""
