"""The members of Docker's ``ContainerCreate`` request (Engine API 1.41 to 1.51)."""

from __future__ import annotations

CONFIG = frozenset(
    """
    ArgsEscaped AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env ExposedPorts
    Healthcheck HostConfig Hostname Image Labels MacAddress NetworkDisabled NetworkingConfig OnBuild
    OpenStdin Shell StdinOnce StopSignal StopTimeout Tty User Volumes WorkingDir
    """.split()  # noqa: SIM905  (a list of one a line is 100 lines)
)

HOST_CONFIG = frozenset(
    """
    Annotations AutoRemove Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps
    BlkioDeviceWriteIOps BlkioWeight BlkioWeightDevice CapAdd CapDrop Capabilities Cgroup
    CgroupParent CgroupnsMode ConsoleSize ContainerIDFile CpuCount CpuPercent CpuPeriod CpuQuota
    CpuRealtimePeriod CpuRealtimeRuntime CpuShares CpusetCpus CpusetMems DeviceCgroupRules
    DeviceRequests Devices DiskQuota Dns DnsOptions DnsSearch ExtraHosts GroupAdd IOMaximumBandwidth
    IOMaximumIOps Init IpcMode Isolation KernelMemory KernelMemoryTCP Links LogConfig MaskedPaths
    Memory MemoryReservation MemorySwap MemorySwappiness Mounts NanoCPUs NanoCpus NetworkMode
    OomKillDisable OomScoreAdj PidMode PidsLimit PortBindings Privileged PublishAllPorts
    ReadonlyPaths ReadonlyRootfs RestartPolicy Runtime SecurityOpt ShmSize StorageOpt Sysctls Tmpfs
    UTSMode Ulimits UsernsMode VolumeDriver VolumesFrom
    """.split()  # noqa: SIM905  (a list of one a line is 100 lines)
)
