"""``[azureml]``: the online endpoint of Azure ML that runs the release, and its instance types."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from mlpack.oci.descriptor import Node
from mlpack.settings.edge import MAX_GPUS, read_cpus, read_memory
from mlpack.settings.reader import (
    integer,
    matching,
    optional,
    read_table,
    setting,
    settings_table,
)
from mlpack.settings.targets import MAX_REPLICAS, kubernetes_name, node_labels

_online_name = matching(
    # The service's rule (Azure ML, *Manage resources and quotas*): single dashes only.
    r"(?=.{3,32}$)[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*",
    "a name of Azure ML",
    "3 to 32 letters, digits and single - between them, a letter first",
)


@settings_table
class InstanceType:
    """``[azureml.instance_types.NAME]``: nodes of the cluster, and how much of one a pod gets."""

    name: str
    cpus: Decimal = setting(read_cpus, "processors of an instance, to a thousandth: `0.5`, `2`")
    memory: int = setting(read_memory, 'memory of an instance: `"2 GiB"`')
    gpus: int = setting(integer(maximum=MAX_GPUS), "NVIDIA's GPUs of an instance", default=0)
    nodes: Mapping[str, str] = setting(
        node_labels,
        'labels of the nodes: `{ agentpool = "gpu" }`',
        factory=dict,
        shown="any node",
    )


def _instance_types(node: Node) -> Mapping[str, InstanceType]:
    found = {}
    for name, each in node.items():
        kubernetes_name(Node(name, each.where))
        found[name] = read_table(each, InstanceType, name=name)
    return found


@settings_table
class AzureMLSettings:
    """``[azureml]``: the endpoint and the deployment of the release."""

    compute: str = setting(
        optional(
            matching(
                r"[A-Za-z][A-Za-z0-9-]{1,23}",
                "the name of a compute",
                "the name given to az ml compute attach: 2 to 24 letters, digits and -",
            )
        ),
        "name of the attached Kubernetes compute",
        default="",
        shown="none: a managed online endpoint",
    )
    endpoint: str = setting(
        optional(_online_name),
        "name of the endpoint, unique in its region",
        default="",
        shown="the module's name",
    )
    deployment: str = setting(
        optional(_online_name),
        "name of the deployment; with one name for all releases, each takes the place of the one "
        "before",
        default="",
        shown="`release-VERSION`",
    )
    instance_type: str = setting(
        optional(
            matching(
                r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?",
                "an instance type",
                "write a name of [azureml.instance_types], or the size of a VM: Standard_DS3_v2",
            )
        ),
        "instance type of the cluster, or the size of the VMs of a managed endpoint",
        default="",
        shown="the cluster's default",
    )
    instances: int = setting(integer(1, MAX_REPLICAS), "how many instances", default=1)
    instance_types: Mapping[str, InstanceType] = setting(
        _instance_types,
        "instance types of the cluster, each a table `[azureml.instance_types.NAME]`",
        factory=dict,
        shown="those it has",
    )
