{{/* Names, labels and shapes that several templates share. One release per namespace, so names have no prefix. */}}

{{- define "gpuhub.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/name: gpuhub
app.kubernetes.io/part-of: gpuhub
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* What selects a part's pods: (list $ "hub"). Never changes for a release. */}}
{{- define "gpuhub.selector" -}}
app.kubernetes.io/name: gpuhub
app.kubernetes.io/instance: {{ (first .).Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{/* Without versions: an upgrade restarts only what has changed. */}}
{{- define "gpuhub.podLabels" -}}
{{ include "gpuhub.selector" . }}
app.kubernetes.io/part-of: gpuhub
{{- end }}

{{/* Names of what has no namespace. */}}
{{- define "gpuhub.clusterName" -}}
{{ printf "%s-gpuhub-%s" (first .).Release.Namespace (last .) }}
{{- end }}

{{- define "gpuhub.usersNamespace" -}}
{{ .Values.users.namespace.name | default (printf "%s-users" .Release.Name) }}
{{- end }}

{{/* What the names of people's own namespaces begin with. */}}
{{- define "gpuhub.personPrefix" -}}
{{ .Values.users.namespace.perPerson.prefix | default (printf "%s-user-" .Release.Name) }}
{{- end }}

{{/* By which labels the users' namespace, or people's own ones, are told from others. */}}
{{- define "gpuhub.usersSelector" -}}
{{- if .Values.users.namespace.perPerson.enabled -}}
gpuhub.io/hub: {{ .Release.Namespace }}
{{- else -}}
kubernetes.io/metadata.name: {{ include "gpuhub.usersNamespace" . }}
{{- end }}
{{- end }}

{{/* The public path, with a slash at both ends. */}}
{{- define "gpuhub.base" -}}
{{- $path := .Values.baseUrl | trimAll "/" -}}
{{ if $path }}/{{ $path }}/{{ else }}/{{ end }}
{{- end }}

{{- define "gpuhub.secret" -}}
{{ .Values.secrets.existing | default "gpuhub" }}
{{- end }}

{{- define "gpuhub.image" -}}
{{ .Values.images.hub.name }}{{ if hasPrefix "sha256:" .Values.images.hub.tag }}@{{ else }}:{{ end }}{{ .Values.images.hub.tag | default .Chart.AppVersion }}
{{- end }}

{{/* An address inside the cluster: (list $ "hub" 8081). */}}
{{- define "gpuhub.url" -}}
http://{{ index . 1 }}.{{ (index . 0).Release.Namespace }}.svc:{{ index . 2 }}
{{- end }}

{{- define "gpuhub.hubApiUrl" -}}
{{ include "gpuhub.url" (list . "hub" 8081) }}{{ include "gpuhub.base" . }}hub/api
{{- end }}

{{- define "gpuhub.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "gpuhub.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Settings and secrets of one container as one folder: (list $ (list CONFIGMAP…) (list KEY…)). */}}
{{- define "gpuhub.settingsVolume" -}}
projected:
  # Readable by the pod's group alone.
  defaultMode: 0440
  sources:
    {{- range index . 1 }}
    - configMap: {name: {{ . }}}
    {{- end }}
    - secret:
        name: {{ include "gpuhub.secret" (index . 0) }}
        items:
          {{- range index . 2 | uniq }}
          - {key: {{ include "gpuhub.key" (list (index $ 0) .) }}, path: secrets/{{ . }}}
          {{- end }}
{{- end }}

{{- define "gpuhub.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Where a part may run: (dict "nodeSelector" … "tolerations" …). */}}
{{- define "gpuhub.place" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The images that people's servers and workers may have. */}}
{{- define "gpuhub.userImages" -}}
{{- $images := list -}}
{{- range .Values.environments }}{{ $images = append $images .image }}{{ end -}}
{{- concat $images .Values.admission.images | uniq | join "\n" -}}
{{- end }}

{{/* A part's pods as a peer. Without a hub of ours, hub and proxy are those of zero-to-jupyterhub. */}}
{{- define "gpuhub.pods" -}}
podSelector:
  matchLabels:
    {{- if or (first .).Values.hub.enabled (not (has (last .) (list "hub" "proxy"))) }}
    {{- include "gpuhub.selector" . | nindent 4 }}
    {{- else }}
    app: jupyterhub
    component: {{ last . }}
    {{- end }}
{{- end }}

{{/* The key of the Secret that holds something: (list $ "broker-token"). */}}
{{- define "gpuhub.key" -}}
{{ get (first .).Values.secrets.keys (last .) | default (last .) }}
{{- end }}

{{- define "gpuhub.dnsEgress" -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
  {{- with .Values.networkPolicy.dns }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "gpuhub.cullerSettings" -}}
{{- dict
  "hub_api_url" (include "gpuhub.hubApiUrl" .)
  "proxy_url" (printf "%s/" (include "gpuhub.url" (list . "proxy-public" .Values.proxy.service.port)))
  "api_token_file" "/etc/gpuhub/secrets/culler-token"
  "after_seconds" .Values.culler.afterSeconds
  "every_seconds" .Values.culler.everySeconds
  "max_age_seconds" .Values.culler.maxAgeSeconds
  | toPrettyJson }}
{{- end }}

{{/* zero-to-jupyterhub's own policies let in by these. */}}
{{- define "gpuhub.z2jhLabels" -}}
{{- if not .Values.hub.enabled -}}
hub.jupyter.org/network-access-hub: "true"
hub.jupyter.org/network-access-proxy-http: "true"
{{- end }}
{{- end }}
