"""The API server: connection, writes behind the Lease's fence, watches, and what they have seen."""
