"""What a grid will cost: times of real steps, what finished records tell, hours and bytes by model and method, and a choice that fits a budget."""
