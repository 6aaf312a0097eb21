{{- define "turn-bpf.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "turn-bpf.selector" -}}
app.kubernetes.io/name: turn-bpf
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "turn-bpf.labels" -}}
{{ include "turn-bpf.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "turn-bpf.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "turn-bpf.interfaces" -}}
{{- if not .Values.interfaces -}}
{{- fail "name the interfaces that clients and peers are reached by on the nodes: --set 'interfaces={eth0}'" -}}
{{- end -}}
{{- toJson .Values.interfaces -}}
{{- end -}}

{{/* What turn-bpf needs, and nothing else. It has to be root: a container's other users get no capabilities. */}}
{{- define "turn-bpf.securityContext" -}}
runAsUser: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: [BPF, NET_ADMIN, PERFMON]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Beside the TURN servers: on the nodes that have one of their pods. */}}
{{- define "turn-bpf.affinity" -}}
{{- with .Values.turnServer.matchLabels -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- toYaml . | nindent 10 }}
      {{- with $.Values.turnServer.namespaces }}
      namespaces:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
{{- end -}}
