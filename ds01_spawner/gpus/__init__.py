"""GPUs: what there is (NVML), who holds it (Docker), which one to take, how it is attached."""
