"""JSON Schemas of grid.yaml, cluster profiles, record.json, verifications and status --json, generated from the types and the pages."""
