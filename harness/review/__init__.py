"""The rules that a folder of results is held against."""
