{{/* The name of all objects: the release's, "emotrack" behind it where it does not say so. */}}
{{- define "emotrack.name" -}}
{{- if contains "emotrack" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-emotrack" (.Release.Name | trunc 41 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "emotrack.selector" -}}
app.kubernetes.io/name: emotrack
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "emotrack.labels" -}}
{{ include "emotrack.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "emotrack.image" -}}
{{- $tag := .Values.image.tag | default (printf "%s%s" .Chart.AppVersion (ternary "-cuda" "" .Values.gpu.enabled)) }}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "emotrack.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "emotrack.name" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{/* A value as text. Helm reads every number of a values file as a float, and 1000000 would print as
     1e+06: JSON prints it whole. */}}
{{- define "emotrack.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{/* Your own checkpoint's folder in the worker's container; empty without one. */}}
{{- define "emotrack.model" -}}
{{- $path := .Values.model.path | trimAll "/" }}
{{- if and .Values.model.image (eq .Values.model.imageAs "copy") }}/var/lib/emotrack/model
{{- else if or .Values.model.image .Values.model.existingClaim }}{{ printf "/var/lib/emotrack/model/%s" $path | trimSuffix "/" }}{{ end }}
{{- end }}

{{/* Committed records that a worker at 60 % of what it can do is behind by: docs/deploy.md. */}}
{{- define "emotrack.lagThreshold" -}}
{{- .Values.autoscaling.lagThreshold | default (ternary 400 20 (eq .Values.input "features")) | int }}
{{- end }}

{{/* What a schema cannot compare: one sentence each. */}}
{{- define "emotrack.check" -}}
{{- include "emotrack.checkSettings" . }}
{{- include "emotrack.checkModel" . }}
{{- $v := .Values }}
{{- if le (int $v.shutdown.graceSeconds) (add $v.shutdown.preStopSeconds $v.shutdown.drainSeconds | int) }}
{{- fail (printf "shutdown.graceSeconds (%d) must be more than preStopSeconds + drainSeconds (%d): a drain would be cut off" (int $v.shutdown.graceSeconds) (add $v.shutdown.preStopSeconds $v.shutdown.drainSeconds | int)) }}
{{- end }}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.max) (int $v.partitions)) }}
{{- fail (printf "autoscaling.max (%d) is more than partitions (%d): a worker without a partition only stands by" (int $v.autoscaling.max) (int $v.partitions)) }}
{{- end }}
{{- if and $v.autoscaling.enabled (ne $v.autoscaling.by "lag") (not (dig "requests" "cpu" "" $v.resources)) }}
{{- fail (printf "autoscaling.by %s needs resources.requests.cpu: cpuPercent is a share of it" $v.autoscaling.by) }}
{{- end }}
{{- if and (eq $v.strategy.type "RollingUpdate") (has (toString $v.strategy.maxSurge) (list "0" "0%")) (has (toString $v.strategy.maxUnavailable) (list "0" "0%")) }}
{{- fail "strategy.maxSurge and strategy.maxUnavailable are both 0: no worker could ever be replaced" }}
{{- end }}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.min) (int ($v.autoscaling.max | default $v.partitions))) }}
{{- fail (printf "autoscaling.min (%d) is more than the most workers there may be (%d)" (int $v.autoscaling.min) (int ($v.autoscaling.max | default $v.partitions))) }}
{{- end }}
{{- end }}

{{- define "emotrack.checkSettings" -}}
{{- $v := .Values }}
{{- range $name, $_ := $v.settings }}
{{- if hasKey $v.secretSettings $name }}
{{- fail (printf "settings.%s and secretSettings.%s are both given: leave one out" $name $name) }}
{{- end }}
{{- end }}
{{- $needs := dict }}
{{- if or (get $v.settings "trace_endpoint") (hasKey $v.secretSettings "trace_endpoint") }}{{ $_ := set $needs "otel" "trace_endpoint" }}{{ end }}
{{- if or (eq (get $v.settings "runtime" | toString) "faust") (hasKey $v.secretSettings "runtime") }}{{ $_ := set $needs "faust" "runtime" }}{{ end }}
{{- range $extra, $name := $needs }}
{{- if not (has $extra $v.image.extras) }}
{{- fail (printf "settings.%s needs an image with the extra %s, and image.extras does not name it: build one with `make image EXTRAS=%s`, then say image.extras: [%s]" $name $extra $extra $extra) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "emotrack.checkModel" -}}
{{- $model := .Values.model }}
{{- if and $model.existingClaim $model.image }}
{{- fail "model.existingClaim and model.image are both given: leave one out" }}
{{- end }}
{{- if and (include "emotrack.model" .) (or (hasKey .Values.settings "model") (hasKey .Values.secretSettings "model")) }}
{{- fail "settings.model cannot be given there: it is set by model" }}
{{- end }}
{{- if and $model.image (eq $model.imageAs "copy") (not (trimAll "/" $model.path)) }}
{{- fail "model.path is missing: the folder of model.image that holds the checkpoint" }}
{{- end }}
{{- if and $model.path (not (include "emotrack.model" .)) }}
{{- fail "model.path is given without model.existingClaim or model.image: the folder is in one of them" }}
{{- end }}
{{- end }}
