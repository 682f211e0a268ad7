-- Health of Tenant, Plan, VectorShard, TenantMove and TenantArchive in Argo CD.
-- Uses nothing but what Argo CD offers without useOpenLibs: no string and no math library.
local progressing = { status = "Progressing", message = "Waiting for the operator" }

local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return progressing
end

local found = {}
for _, condition in ipairs(status.conditions) do
  if condition.observedGeneration == obj.metadata.generation then
    found[condition.type] = condition
  end
end

local function holds(name)
  return found[name] ~= nil and found[name].status == "True"
end

if holds("Stalled") then
  return { status = "Degraded", message = found.Stalled.message }
end
if holds("Reconciling") then
  return { status = "Progressing", message = found.Reconciling.message }
end
if holds("Ready") then
  if holds("Suspended") then
    return { status = "Suspended", message = found.Suspended.message }
  end
  return { status = "Healthy", message = found.Ready.message }
end
if found.Ready ~= nil then
  progressing.message = found.Ready.message
end
return progressing
