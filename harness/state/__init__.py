"""How a grid stands, from files and one look at the scheduler."""
