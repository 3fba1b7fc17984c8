"""Finished cells as runs of experiment trackers, and as files of every_eval_ever."""
