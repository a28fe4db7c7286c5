{{/* What stands around people's pods: who may do what there, who may speak to whom, how much there is. One text for
     the namespace that all share and for people's own ones. (list $ NAMESPACE), or (list $ "") for the hub to place. */}}
{{- define "gpuhub.walls" -}}
{{- $root := first . }}
{{- $namespace := last . }}
{{- $release := dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" $root.Release.Namespace)) }}
{{- range $part := list "hub" "broker" }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: gpuhub-{{ $part }}
  {{- include "gpuhub.wallPlace" (list $root $namespace) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  {{- if $namespace }}
  kind: Role
  name: gpuhub-{{ $part }}
  {{- else }}
  kind: ClusterRole
  name: {{ include "gpuhub.clusterName" (list $root (printf "%s-person" $part)) }}
  {{- end }}
subjects:
  - {kind: ServiceAccount, name: {{ $part }}, namespace: {{ $root.Release.Namespace }}}
{{- end }}
{{- if $root.Values.networkPolicy.enabled }}
---
# Nothing comes in and nothing goes out that is not named below.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: gpuhub-default-deny
  {{- include "gpuhub.wallPlace" (list $root $namespace) | nindent 2 }}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: gpuhub-servers
  {{- include "gpuhub.wallPlace" (list $root $namespace) | nindent 2 }}
spec:
  podSelector: {matchLabels: {component: singleuser-server}}
  policyTypes: [Ingress, Egress]
  ingress:
    # People come through the proxy; the hub looks whether a new server answers.
    - ports: [{protocol: TCP, port: 8888}]
      from:
        {{- range list "proxy" "hub" }}
        - {{- toYaml $release | nindent 10 }}
          {{- include "gpuhub.pods" (list $root .) | nindent 10 }}
        {{- end }}
  egress:
    {{- include "gpuhub.dnsEgress" $root | nindent 4 }}
    - ports: [{protocol: TCP, port: 8081}]
      to:
        - {{- toYaml $release | nindent 10 }}
          {{- include "gpuhub.pods" (list $root "hub") | nindent 10 }}
    - ports: [{protocol: TCP, port: 8090}]
      to:
        - {{- toYaml $release | nindent 10 }}
          {{- include "gpuhub.pods" (list $root "broker") | nindent 10 }}
    # The one connection to a worker. Each worker's own policy lets in its owner's server only.
    - ports: [{protocol: TCP, port: 2222}]
      to:
        - podSelector: {matchLabels: {component: gpuhub-worker}}
    {{- with $root.Values.networkPolicy.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
---
# What comes in at a worker is said by the policy that the broker makes with it.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: gpuhub-workers
  {{- include "gpuhub.wallPlace" (list $root $namespace) | nindent 2 }}
spec:
  podSelector: {matchLabels: {component: gpuhub-worker}}
  policyTypes: [Egress]
  egress:
    {{- include "gpuhub.dnsEgress" $root | nindent 4 }}
    {{- with $root.Values.networkPolicy.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- with $root.Values.users.namespace.quota }}
---
apiVersion: v1
kind: ResourceQuota
metadata:
  name: gpuhub
  {{- include "gpuhub.wallPlace" (list $root $namespace) | nindent 2 }}
spec:
  hard: {{- toYaml . | nindent 4 }}
{{- end }}
{{- with $root.Values.users.namespace.limits }}
---
apiVersion: v1
kind: LimitRange
metadata:
  name: gpuhub
  {{- include "gpuhub.wallPlace" (list $root $namespace) | nindent 2 }}
spec:
  limits: {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{- define "gpuhub.wallPlace" -}}
{{- $root := first . -}}
{{- with last . -}}
namespace: {{ . }}
labels: {{- include "gpuhub.labels" $root | nindent 2 }}
{{- else -}}
labels:
  app.kubernetes.io/name: gpuhub
  app.kubernetes.io/part-of: gpuhub
  app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end }}
{{- end }}
