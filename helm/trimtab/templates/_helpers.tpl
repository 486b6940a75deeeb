{{/* Labels of one component: (dict "root" $ "component" "operator"). */}}
{{- define "trimtab.labels" -}}
{{ include "trimtab.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "trimtab.selector" -}}
app.kubernetes.io/name: trimtab
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "trimtab.image" -}}
{{- $image := .root.Values.image -}}
{{- if not (or $image.registry (eq $image.tag "local")) }}
{{- fail "image.registry: no image of Trimtab is published: build and push them as docs/how-to/install.md shows, then --set image.registry=WHERE; or --set image.tag=local where the nodes have them under that tag" }}
{{- end }}
{{- with $image.registry }}{{ . }}/{{ end }}trimtab-{{ .component }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* What every pod of ours may not do. */}}
{{- define "trimtab.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "trimtab.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Who the process is, and its settings. */}}
{{- define "trimtab.environment" -}}
env:
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
envFrom:
- configMapRef: {name: trimtab-{{ .component }}}
{{- end }}

{{/* Seconds to end in: the times of a drain, one after the other, and 15 s to close and to say goodbye. */}}
{{- define "trimtab.grace" -}}
{{- $seconds := 15 -}}
{{- range . }}{{- $seconds = add $seconds (ceil (float64 .)) }}{{- end -}}
{{ $seconds }}
{{- end }}

{{/* Placement of the pods of one component, spread over hosts and zones where there are several. */}}
{{- define "trimtab.placement" -}}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "trimtab.selector" $ | nindent 6 }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* ConfigMap of the settings, ServiceAccount and PodDisruptionBudget: the same for every process. */}}
{{- define "trimtab.process" -}}
{{- $name := printf "trimtab-%s" .component -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "trimtab.labels" . | nindent 4 }}
  {{- with .values.serviceAccountAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "trimtab.labels" . | nindent 4 }}
data:
  {{- $prefix := printf "TRIMTAB_%s_" (upper .component) }}
  {{- range $key, $value := merge (dict) .values.settings .defaults }}
  {{ $prefix }}{{ upper $key }}: {{ $value | toString | quote }}
  {{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "trimtab.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "trimtab.selector" . | nindent 6 }}
{{- end }}

{{/* What a kube-scheduler needs to ask the extender. */}}
{{- define "trimtab.schedulerConfig" -}}
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection:
  leaderElect: true
  resourceNamespace: {{ .Release.Namespace }}
  resourceName: trimtab-scheduler
profiles:
- schedulerName: {{ .Values.scheduler.name }}
extenders:
- urlPrefix: http://trimtab-extender.{{ .Release.Namespace }}.svc:8888/v1
  filterVerb: filter
  prioritizeVerb: prioritize
  weight: 2
  httpTimeout: 200ms
  nodeCacheCapable: true
  ignorable: true
  managedResources:
  - {name: nvidia.com/gpu, ignoredByScheduler: false}
  - {name: amd.com/gpu, ignoredByScheduler: false}
  - {name: gpu.intel.com/xe, ignoredByScheduler: false}
  - {name: trimtab.dev/placement, ignoredByScheduler: true}
{{- end }}

{{/* Binds a ClusterRole and a Role of the same name as the ServiceAccount. */}}
{{- define "trimtab.bindings" -}}
{{- $name := printf "trimtab-%s" .component -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels: {{- include "trimtab.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $name }}}
subjects:
- {kind: ServiceAccount, name: {{ $name }}, namespace: {{ .root.Release.Namespace }}}
{{- if .lease }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "trimtab.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects:
- {kind: ServiceAccount, name: {{ $name }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}
{{- end }}
