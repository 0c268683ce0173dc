{{- define "oasis.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "oasis.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "oasis.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "oasis.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "oasis.secret" -}}
{{- required "existingSecret is empty: make a Secret with the keys api-secret, mongo-password, elastic-password, postgres-password and keycloak-password, and set existingSecret to its name" .Values.existingSecret -}}
{{- end -}}

{{/* An environment variable from the Secret: dict "root" $ "name" VARIABLE "key" KEY */}}
{{- define "oasis.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ include "oasis.secret" .root }}
      key: {{ .key }}
{{- end -}}

{{- define "oasis.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "oasis.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop:
    - ALL
{{- end -}}

{{/* Host of a service: dict "root" $ "name" "mongo" */}}
{{- define "oasis.host" -}}
{{- $host := (index .root.Values .name).host -}}
{{- if $host }}{{ $host }}{{ else }}{{ include "oasis.fullname" .root }}-{{ .name }}{{ end -}}
{{- end -}}

{{/* What app and workers have in common: dict "root" $ "service" NAME */}}
{{- define "oasis.environment" -}}
- name: NOMAD_META_SERVICE
  value: {{ .service }}
- name: NOMAD_SERVICES_API_HOST
  value: {{ .root.Values.host | quote }}
- name: NOMAD_SERVICES_API_PORT
  value: {{ .root.Values.port | quote }}
- name: NOMAD_SERVICES_HTTPS
  value: {{ .root.Values.https | quote }}
- name: NOMAD_MONGO_HOST
  value: {{ include "oasis.host" (dict "root" .root "name" "mongo") }}
- name: NOMAD_MONGO_USERNAME
  value: {{ .root.Values.mongo.user }}
- name: NOMAD_ELASTIC_HOST
  value: {{ include "oasis.host" (dict "root" .root "name" "elastic") }}
- name: NOMAD_ELASTIC_USERNAME
  value: {{ .root.Values.elastic.user }}
- name: NOMAD_TEMPORAL_HOST
  value: {{ include "oasis.host" (dict "root" .root "name" "temporal") }}
- name: NOMAD_TEMPORAL_NAMESPACE
  value: {{ .root.Values.temporal.namespace }}
{{ include "oasis.secretVariable" (dict "root" .root "name" "NOMAD_SERVICES_API_SECRET" "key" "api-secret") }}
{{ include "oasis.secretVariable" (dict "root" .root "name" "NOMAD_MONGO_PASSWORD" "key" "mongo-password") }}
{{ include "oasis.secretVariable" (dict "root" .root "name" "NOMAD_ELASTIC_PASSWORD" "key" "elastic-password") }}
{{ include "oasis.secretVariable" (dict "root" .root "name" "NOMAD_KEYCLOAK_PASSWORD" "key" "keycloak-password") }}
{{- end -}}

{{- define "oasis.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Waits for Temporal and makes its namespace. */}}
{{- define "oasis.namespaceContainer" -}}
- name: temporal-namespace
  image: {{ .Values.temporal.toolsImage }}
  command: ["/bin/sh", "/scripts/temporal-setup.sh", "namespace"]
  env:
    - name: TEMPORAL_ADDRESS
      value: {{ include "oasis.host" (dict "root" . "name" "temporal") }}:7233
    - name: TEMPORAL_NAMESPACE
      value: {{ .Values.temporal.namespace }}
  securityContext:
    {{- include "oasis.containerSecurity" . | nindent 4 }}
  resources:
    requests: {cpu: 50m, memory: 64Mi}
    limits: {memory: 256Mi}
  volumeMounts:
    - name: scripts
      mountPath: /scripts
{{- end -}}

{{- define "oasis.nomadVolumes" -}}
- name: config
  configMap:
    name: {{ include "oasis.fullname" . }}-nomad
- name: scripts
  configMap:
    name: {{ include "oasis.fullname" . }}-temporal
- name: files
  persistentVolumeClaim:
    claimName: {{ .Values.files.existingClaim | default (printf "%s-files" (include "oasis.fullname" .)) }}
{{- end -}}

{{- define "oasis.nomadMounts" -}}
- name: config
  mountPath: /app/nomad.yaml
  subPath: nomad.yaml
- name: files
  mountPath: /app/.volumes/fs
{{- end -}}
