"""Pure builders of everything that a tenant is given: (tenant, plan, ...) -> manifests."""
