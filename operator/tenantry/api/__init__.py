"""The kinds of `tenantry.dev` as pydantic models; `crds/` is generated from them.

The API server validates, these models read. Limits and rules are therefore only written into the generated
schema (`tenantry.api.schema.Schema`) and not checked again here: an object that was stored under an older,
laxer schema, or that carries fields of a newer one, must never stop an operator from reading it.
"""
