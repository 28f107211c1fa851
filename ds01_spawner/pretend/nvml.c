/* NVML: the library, its devices, MIG and NVLink. See nvml.h. */
#include "nvml.h"

#include <stdio.h>
#include <string.h>

/* -- The library ----------------------------------------------------------------------------- */

/* By this, a program can tell the stand-in from the real one. */
int ds01_pretended(void) { return 1; }

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    find_file();
    int code = refresh();
    if (!code) code = fault_of(&state.library, __func__);
    if (!code) users++;
    pthread_mutex_unlock(&lock);
    return code;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    int code = users ? OK : UNINITIALIZED;
    if (users) users--;
    pthread_mutex_unlock(&lock);
    return code;
}

const char *nvmlErrorString(int code) {
    static __thread char text[40];
    snprintf(text, sizeof text, "pretended error %d", code);
    return text;
}

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    ASK_LIBRARY
    code = put(version, size, state.driver);
    ANSWER
}

int nvmlSystemGetNVMLVersion(char *version, unsigned size) {
    ASK_LIBRARY
    code = put(version, size, state.driver);
    ANSWER
}

/* -- Finding devices ------------------------------------------------------------------------- */

int nvmlDeviceGetCount_v2(unsigned *count) {
    ASK_LIBRARY
    *count = state.gpu_count;
    ANSWER
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle *h) {
    ASK_LIBRARY
    FAIL_IF(index >= (unsigned)state.gpu_count, INVALID_ARGUMENT)
    code = fault_of(&state.gpus[index].device, __func__);
    *h = gpu_handle(index);
    ANSWER
}

int nvmlDeviceGetHandleByUUID(const char *uuid, handle *h) {
    ASK_LIBRARY
    code = NOT_FOUND;
    for (int i = 0; i < state.gpu_count && code == NOT_FOUND; i++) {
        gpu *g = &state.gpus[i];
        if (!strcmp(g->device.uuid, uuid)) {
            code = fault_of(&g->device, __func__);
            *h = gpu_handle(i);
        }
        for (int j = 0; j < MOST_MIG && code == NOT_FOUND; j++)
            if (g->mig[j].exists && !strcmp(g->mig[j].device.uuid, uuid)) {
                code = fault_of(&g->mig[j].device, __func__);
                *h = mig_handle(i, j);
            }
    }
    ANSWER
}

int nvmlDeviceGetIndex(handle h, unsigned *index) {
    ASK(h)
    *index = m ? m - g->mig : g - state.gpus;
    ANSWER
}

int nvmlDeviceGetUUID(handle h, char *uuid, unsigned size) {
    ASK(h)
    code = put(uuid, size, d->uuid);
    ANSWER
}

int nvmlDeviceGetName(handle h, char *name, unsigned size) {
    ASK(h)
    code = put(name, size, d->name);
    ANSWER
}

int nvmlDeviceGetMinorNumber(handle h, unsigned *minor) {
    ASK(h)
    FAIL_IF(m, NOT_SUPPORTED)
    *minor = g->minor;
    ANSWER
}

typedef struct {
    unsigned long long total, free, used;
} memory_info;

int nvmlDeviceGetMemoryInfo(handle h, memory_info *info) {
    ASK(h)
    unsigned long long used = 0;
    for (int i = 0; i < d->process_count; i++)
        if (d->processes[i].memory > 0) used += d->processes[i].memory;
    info->total = d->memory;
    info->used = used < d->memory ? used : d->memory;
    info->free = d->memory - info->used;
    ANSWER
}

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, ids, subsystem;
    char text[32];
} pci_info;

static void fill_pci(pci_info *info, const char *bus) {
    memset(info, 0, sizeof *info);
    sscanf(bus, "%x:%x:%x", &info->domain, &info->bus, &info->device);
    snprintf(info->text, sizeof info->text, "%08X:%02X:%02X.0", info->domain, info->bus,
             info->device);
    snprintf(info->legacy, sizeof info->legacy, "%04X:%02X:%02X.0", info->domain & 0xffff,
             info->bus & 0xff, info->device & 0xff);
}

int nvmlDeviceGetPciInfo_v3(handle h, pci_info *info) {
    ASK(h)
    fill_pci(info, g->bus);
    ANSWER
}

/* -- MIG ------------------------------------------------------------------------------------- */

int nvmlDeviceGetMigMode(handle h, unsigned *current, unsigned *pending) {
    ASK(h)
    FAIL_IF(m || !g->has_mig, NOT_SUPPORTED)
    *current = g->mode;
    *pending = g->pending_mode;
    ANSWER
}

int nvmlDeviceGetMaxMigDeviceCount(handle h, unsigned *count) {
    ASK(h)
    *count = 0;
    for (int i = 0; i < MOST_PROFILES && !m; i++)
        if (g->profiles[i].slices > *count) *count = g->profiles[i].slices;
    ANSWER
}

int nvmlDeviceGetMigDeviceHandleByIndex(handle h, unsigned slot, handle *found) {
    ASK(h)
    FAIL_IF(m || slot >= MOST_MIG, INVALID_ARGUMENT)
    FAIL_IF(!g->has_mig, NOT_SUPPORTED)
    FAIL_IF(!g->mode || !g->mig[slot].exists, NOT_FOUND)
    code = fault_of(&g->mig[slot].device, __func__);
    *found = mig_handle(g - state.gpus, slot);
    ANSWER
}

int nvmlDeviceIsMigDeviceHandle(handle h, unsigned *is_mig) {
    ASK(h)
    *is_mig = m != NULL;
    ANSWER
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle h, handle *parent) {
    ASK(h)
    FAIL_IF(!m, INVALID_ARGUMENT)
    *parent = gpu_handle(g - state.gpus);
    ANSWER
}

typedef struct {
    unsigned processors, copy, decoders, encoders, jpeg, ofa, instance_slices, slices;
    unsigned long long memory_mib;
} attributes;

int nvmlDeviceGetAttributes_v2(handle h, attributes *a) {
    ASK(h)
    FAIL_IF(!m, NOT_SUPPORTED)
    memset(a, 0, sizeof *a);
    a->processors = 14 * m->slices;
    a->instance_slices = m->instance_slices;
    a->slices = m->slices;
    a->memory_mib = d->memory >> 20;
    ANSWER
}

int nvmlDeviceGetGpuInstanceId(handle h, unsigned *id) {
    ASK(h)
    FAIL_IF(!m, NOT_SUPPORTED)
    *id = m->instance;
    ANSWER
}

int nvmlDeviceGetComputeInstanceId(handle h, unsigned *id) {
    ASK(h)
    FAIL_IF(!m, NOT_SUPPORTED)
    *id = m->compute_instance;
    ANSWER
}

typedef struct {
    unsigned id, p2p, slices, count, processors, copy, decoders, encoders, jpeg, ofa;
    unsigned long long memory_mib;
} profile_info;

int nvmlDeviceGetGpuInstanceProfileInfo(handle h, unsigned number, profile_info *info) {
    ASK(h)
    FAIL_IF(number >= MOST_PROFILES, INVALID_ARGUMENT)
    /* As far as is known the real one tells them only in MIG mode. */
    FAIL_IF(m || !g->mode || !g->profiles[number].exists, NOT_SUPPORTED)
    profile *p = &g->profiles[number];
    memset(info, 0, sizeof *info);
    info->id = p->id;
    info->slices = p->slices;
    info->count = p->limit;
    info->processors = 14 * p->slices;
    info->memory_mib = p->memory_mib;
    ANSWER
}

/* -- NVLink ---------------------------------------------------------------------------------- */

#define ASK_LINK(h)                                              \
    ASK(h)                                                       \
    FAIL_IF(m || !g->link_count, NOT_SUPPORTED)                  \
    FAIL_IF(link >= (unsigned)g->link_count, INVALID_ARGUMENT)   \
    link_end *end = &g->links[link];                             \
    (void)end;

/* A link that leads nowhere is there and not active: its type is 255. */
int nvmlDeviceGetNvLinkState(handle h, unsigned link, unsigned *active) {
    ASK_LINK(h)
    *active = end->type != 255;
    ANSWER
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(handle h, unsigned link, pci_info *info) {
    ASK_LINK(h)
    fill_pci(info, end->bus);
    ANSWER
}

int nvmlDeviceGetNvLinkRemoteDeviceType(handle h, unsigned link, unsigned *type) {
    ASK_LINK(h)
    *type = end->type;
    ANSWER
}
