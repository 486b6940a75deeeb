"""Every label, annotation, taint and resource name that Trimtab reads or writes."""

GROUP = "trimtab.dev"
VERSION = "v1alpha1"

# Labels
POOL = "trimtab.dev/pool"  # on pods, Services and Deployments of a ServingPool: its name
ACCELERATOR = "trimtab.dev/accelerator"  # on nodes: e.g. `nvidia-h100`
SITE = "topology.trimtab.dev/site"
ROW = "topology.trimtab.dev/row"
RACK = "topology.trimtab.dev/rack"
AISLE = "topology.trimtab.dev/aisle"
NODE_TYPE = "trimtab.dev/node-type"  # on nodes of a local cluster: `fake` (kwok) or `process`
RUN_AS = "trimtab.dev/run-as"  # on pods: `process` lets the process node run the container's command

# Annotations
APPROVE = "trimtab.dev/approve"  # comma-separated ids of proposals
RESUME = "trimtab.dev/resume"  # knob name whose contest a person has resolved
RELEASE = "trimtab.dev/release"  # any value: give back every knob of this object
WATTS = "trimtab.dev/watts"  # on pods: declared watts, a whole number; wins over the profiles of the pool
PLACEMENT_EPOCH = "trimtab.dev/placement-epoch"  # on nodes: the nudge that wakes rejected pods
PLAY_RESIZE = "trimtab.dev/play-resize"  # on pods of fake nodes: `Deferred` or `Infeasible` is what a resize gets
PLACEMENT_NODE = "trimtab.dev/placement-node"  # on the Lease PLACEMENT_LEASE: the node that is to be nudged
SCHEMA_HASH = "trimtab.dev/schema-hash"  # on CRDs: hash of the generated schema

# Extended resources and taints
PLACEMENT_RESOURCE = "trimtab.dev/placement"  # other pods request it to be placed by the extender
GPU_RESOURCE = "nvidia.com/gpu"
# What the scheduler sends pods to the extender for, `PLACEMENT_RESOURCE` besides (manifests/scheduler-config.yaml).
ACCELERATOR_RESOURCES = (GPU_RESOURCE, "amd.com/gpu", "gpu.intel.com/xe")
PROCESS_TAINT = "trimtab.dev/process-node"
FAKE_TAINT = "kwok.x-k8s.io/node"

FINALIZER = "trimtab.dev/release"

PLACEMENT_LEASE = "trimtab-placement"  # whose annotations ask the operator for a nudge
