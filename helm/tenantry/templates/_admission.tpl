{{/*
CEL: the request comes from whoever may change what is the operator's. Cheapest first, the operator before all:
every child it writes passes here. Platform administrators are those who may update every Tenant; asking the
authorizer comes last, since on some clusters that is a request to a webhook.
*/}}
{{- define "tenantry.admission.trusted" -}}
{{- $own := list (include "tenantry.user" .) "system:apiserver" "system:kube-controller-manager" "system:kube-scheduler" -}}
request.userInfo.username in {{ concat $own .Values.admission.trusted.users | toJson }} ||
request.userInfo.?groups.orValue([]).exists(group, group in {{ prepend .Values.admission.trusted.groups "system:serviceaccounts:kube-system" | toJson }}) ||
authorizer.group("tenantry.dev").resource("tenants").check("update").allowed()
{{- end -}}

{{/*
CEL: the request comes from inside of the tenant: a person, or a ServiceAccount of its namespace. ServiceAccounts of
other namespaces are controllers that the platform team has installed; what they may do, RBAC alone says.
*/}}
{{- define "tenantry.admission.member" -}}
(
  !request.userInfo.username.startsWith("system:serviceaccount:") ||
  request.userInfo.username.startsWith("system:serviceaccount:" + request.namespace + ":")
) &&
!request.userInfo.username.startsWith("system:node:") &&
!(
  {{- include "tenantry.admission.trusted" . | nindent 2 }}
)
{{- end -}}

{{/* Which namespaces are tenants'; nobody but the trusted changes that label. */}}
{{- define "tenantry.admission.namespaces" -}}
matchExpressions:
  - {key: tenantry.dev/tenant, operator: Exists}
{{- end -}}

{{- define "tenantry.admission.workloads" -}}
- apiGroups: [apps]
  apiVersions: [v1]
  resources: [daemonsets, deployments, replicasets, statefulsets]
  operations: [CREATE, UPDATE]
- apiGroups: [batch]
  apiVersions: [v1]
  resources: [cronjobs, jobs]
  operations: [CREATE, UPDATE]
- apiGroups: [""]
  apiVersions: [v1]
  resources: [pods, replicationcontrollers]
  operations: [CREATE, UPDATE]
{{- end -}}

{{/* CEL variables: the pod that an object is or makes, and the one that it was or made before. */}}
{{- define "tenantry.admission.pod" -}}
- name: pod
  expression: |-
    request.kind.kind == "Pod" ? dyn(object) :
    request.kind.kind == "CronJob" ? dyn(object).spec.jobTemplate.spec.template :
    dyn(object).spec.?template.orValue({"spec": {"containers": []}})
- name: before
  expression: |-
    oldObject == null ? dyn({"spec": {}}) :
    request.kind.kind == "Pod" ? dyn(oldObject) :
    request.kind.kind == "CronJob" ? dyn(oldObject).spec.jobTemplate.spec.template :
    dyn(oldObject).spec.?template.orValue({"spec": {}})
# What stood before the rules did may be scaled, labelled and deleted as it is; it follows them when it is changed.
- name: unchanged
  expression: variables.pod.spec == variables.before.spec
- name: subject
  expression: request.kind.kind + " " + string(dyn(object).metadata.?name.orValue(""))
{{- end -}}

{{/* Arguments: the root context and the policy's name without prefix. */}}
{{- define "tenantry.admission.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ include "tenantry.name" .root }}-{{ .policy }}
  labels: {{- include "tenantry.labels" .root | nindent 4 }}
spec:
  policyName: {{ include "tenantry.name" .root }}-{{ .policy }}
  # The API server's audit log then has each refusal too.
  validationActions: [Deny, Audit]
{{- end -}}
