"""JSON Schemas of grid.yaml, cluster profiles and record.json, generated from the types and the pages."""
