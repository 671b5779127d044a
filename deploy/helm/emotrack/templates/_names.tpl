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

{{/* What a schema cannot compare: one sentence each. */}}
{{- define "emotrack.check" -}}
{{- $v := .Values }}
{{- $own := dict "bootstrap" "kafka.bootstrap" "group" "kafka.group" "topic_prefix" "kafka.topicPrefix" "redis_url" "redis.secretName" "drain_budget_s" "shutdown.drainSeconds" "device" "gpu.enabled" "metrics_host" "the chart" "metrics_port" "the chart" }}
{{- range $name, $_ := merge (deepCopy $v.settings) $v.secretSettings }}
{{- with get $own $name }}
{{- fail (printf "settings.%s cannot be given there: it is set by %s" $name .) }}
{{- end }}
{{- end }}
{{- if le (int $v.shutdown.graceSeconds) (add $v.shutdown.preStopSeconds $v.shutdown.drainSeconds | int) }}
{{- fail (printf "shutdown.graceSeconds (%d) must be more than preStopSeconds + drainSeconds (%d): a drain would be cut off" (int $v.shutdown.graceSeconds) (add $v.shutdown.preStopSeconds $v.shutdown.drainSeconds | int)) }}
{{- end }}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.max) (int $v.partitions)) }}
{{- fail (printf "autoscaling.max (%d) is more than partitions (%d): a worker without a partition only stands by" (int $v.autoscaling.max) (int $v.partitions)) }}
{{- end }}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.min) (int ($v.autoscaling.max | default $v.partitions))) }}
{{- fail (printf "autoscaling.min (%d) is more than the most workers there may be (%d)" (int $v.autoscaling.min) (int ($v.autoscaling.max | default $v.partitions))) }}
{{- end }}
{{- end }}
