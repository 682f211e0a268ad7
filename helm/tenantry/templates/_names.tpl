{{- define "tenantry.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "tenantry.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "tenantry.name" .) -}}
{{- end -}}

{{/* The operator as the API server knows it. */}}
{{- define "tenantry.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "tenantry.serviceAccount" . }}
{{- end -}}

{{- define "tenantry.selector" -}}
app.kubernetes.io/name: tenantry
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tenantry.labels" -}}
{{ include "tenantry.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: tenantry
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}
