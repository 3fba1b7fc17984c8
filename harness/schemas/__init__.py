"""JSON Schemas of grid.yaml, cluster profiles, record.json and verifications, generated from the types and the pages."""
