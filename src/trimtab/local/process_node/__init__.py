"""The process node: one Node whose pods are local processes, each with its own loopback address.

kwok's pods do nothing. Engines that answer HTTP, and our own processes tried under their own service accounts, need
pods that run. This package plays the part of the kubelet for them, without containers: commands come from an allow
list, images mean nothing, and every field of a pod that cannot be honored is named in an Event.

Pure parts (values in, values out): `spec`, `quantity`, `entrypoint`, `environment`, `mounts`, `probes`, `restarts`,
`resize`, `services`, `status`. The rest does the work: `processes` and `logs` (one process and its output), `volumes`
and `identity` (files), `prober` (one probe), `container` (a container over its restarts), `pod` (a pod over its
life), `forward` (addresses of Services), `kubelet_api` (`kubectl logs`), `node` (the Node object and its Lease),
`agent` (all of it together).
"""
