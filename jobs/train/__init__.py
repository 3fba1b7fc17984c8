"""One stage: training, removal, evaluation, what it leaves."""
