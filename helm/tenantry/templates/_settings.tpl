{{/*
The environment of the operator. Each value under `settings` is the setting TENANTRY_<NAME>, so that a new setting
needs no line here.
*/}}
{{- define "tenantry.environment" -}}
{{- range $name, $value := merge (dict "leaseNamespace" (include "tenantry.leaseNamespace" .) "ownNamespace" (include "tenantry.ownNamespace" .)) .Values.settings }}
- name: TENANTRY_{{ $name | snakecase | upper }}
  value: {{ include "tenantry.text" $value | quote }}
{{- end }}
{{- if not .Values.ledger.ephemeral }}
- name: TENANTRY_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "tenantry.ledgerSecret" . }}
      key: {{ .Values.ledger.secret.key }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if hasPrefix "TENANTRY_" .name }}
{{- fail (printf "extraEnv names %s: the operator's own settings are values under `settings`, and its database under `ledger`" .name) }}
{{- end }}
- {{ toYaml . | nindent 2 | trim }}
{{- end }}
{{- end -}}

{{/* A list as words with commas between them; a whole number without an exponent, which helm would give it. */}}
{{- define "tenantry.text" -}}
{{- if kindIs "slice" . }}{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}
{{- else }}{{ . }}
{{- end }}
{{- end -}}

{{- define "tenantry.leaseNamespace" -}}
{{- .Values.settings.leaseNamespace | default .Release.Namespace -}}
{{- end -}}

{{- define "tenantry.ownNamespace" -}}
{{- .Values.settings.ownNamespace | default .Release.Namespace -}}
{{- end -}}

{{/* The Secret with the ledger's URL; rendering ends where there is none, because a lost ledger cannot be had back. */}}
{{- define "tenantry.ledgerSecret" -}}
{{- $name := .Values.ledger.secret.name -}}
{{- if not $name -}}
{{- fail (printf "ledger.secret.name is missing: the operator's records need a PostgreSQL database. Make a Secret with its URL (kubectl create secret generic tenantry-database --namespace %s --from-literal=%s=postgresql://user:password@host/tenantry) and set ledger.secret.name=tenantry-database. To try the operator without a database, set ledger.ephemeral=true: its records are lost with its pod" .Release.Namespace .Values.ledger.secret.key) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* How many pods; one where the ledger is a file that only one of them has. */}}
{{- define "tenantry.replicas" -}}
{{- $asked := .Values.replicas -}}
{{- if .Values.ledger.ephemeral -}}
{{- if .Values.ledger.secret.name -}}
{{- fail (printf "ledger.secret.name is %s and ledger.ephemeral is true: keep one of them. With ephemeral the records are lost with the pod, and the database is not used" .Values.ledger.secret.name) -}}
{{- end -}}
{{- if gt (int ($asked | default 0)) 1 -}}
{{- fail (printf "replicas is %v and ledger.ephemeral is true: an ephemeral ledger is a file in one pod. Set replicas to 1, or name a database in ledger.secret.name" $asked) -}}
{{- end -}}
{{- end -}}
{{- if kindIs "invalid" $asked -}}
{{- ternary 1 2 .Values.ledger.ephemeral -}}
{{- else -}}
{{- int $asked -}}
{{- end -}}
{{- end -}}

{{- define "tenantry.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}
