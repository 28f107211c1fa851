/*
 * A stand-in for NVIDIA's management library: the functions of NVML that DS01 uses, answered from
 * a file of lines instead of a driver. ds01_spawner/pretend/state.py writes the file and says what
 * its lines mean. The real pynvml loads this as libnvidia-ml.so.1.
 *
 * The file is the one named "state" in the directory that DS01_PRETEND_GPUS names when the library
 * is initialised, or else beside this library. It is read again whenever it has changed, so that
 * GPUs can break while somebody looks.
 *
 * Numbers and the layout of structures are those of NVIDIA's nvml.h, which is public.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
};

enum { MOST_GPUS = 64, MOST_MIG = 8, MOST_LINKS = 36, MOST_PROFILES = 18, MOST_EVENTS = 256 };
enum { TEXT = 96 };

typedef void *handle;

/* One call that fails, on a device or everywhere. */
typedef struct {
    char call[64];
    int code;
} fault;

typedef struct {
    char kind[12];
    unsigned pid;
    long long memory;
} process;

/* What a GPU and a MIG device have in common. */
typedef struct {
    char uuid[TEXT], name[TEXT];
    unsigned long long memory;
    int utilisation;
    fault *faults;
    int fault_count;
    process *processes;
    int process_count;
} device;

typedef struct {
    device device;
    int exists;
    unsigned instance, compute_instance, instance_slices, slices;
} mig_device;

typedef struct {
    unsigned id, slices, limit;
    unsigned long long memory_mib;
    char name[TEXT];
    int exists;
} profile;

typedef struct {
    unsigned type;
    char bus[16];
} link_end;

typedef struct {
    device device;
    int minor;
    char bus[16];
    int has_mig, mode, pending_mode;
    int remaps, remapped[4];
    int retires, retired;
    int recovery;
    int has_gpm;
    link_end links[MOST_LINKS];
    int link_count;
    profile profiles[MOST_PROFILES];
    mig_device mig[MOST_MIG];
} gpu;

typedef struct {
    unsigned long long number, type, data;
    int gpu;
    unsigned instance, compute_instance;
} event;

static struct {
    char driver[TEXT];
    unsigned generation;
    device library; /* its faults are those of every call */
    gpu gpus[MOST_GPUS];
    int gpu_count;
    event events[MOST_EVENTS];
    int event_count;
} state;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int users;
static char path[PATH_MAX];
static struct stat seen;

/* -- The file ------------------------------------------------------------------------------- */

static void forget(device *d) {
    free(d->faults);
    free(d->processes);
}

static void clear(void) {
    forget(&state.library);
    for (int i = 0; i < state.gpu_count; i++) {
        forget(&state.gpus[i].device);
        for (int j = 0; j < MOST_MIG; j++) forget(&state.gpus[i].mig[j].device);
    }
    memset(&state, 0, sizeof state);
}

static void add_fault(device *d, const char *text) {
    fault f = {0};
    if (sscanf(text, "%63s %d", f.call, &f.code) != 2) return;
    d->faults = realloc(d->faults, (d->fault_count + 1) * sizeof f);
    d->faults[d->fault_count++] = f;
}

static void add_process(device *d, const char *text) {
    process p = {0};
    if (sscanf(text, "%11s %u %lld", p.kind, &p.pid, &p.memory) != 3) return;
    d->processes = realloc(d->processes, (d->process_count + 1) * sizeof p);
    d->processes[d->process_count++] = p;
}

static void copy(char *to, const char *from, size_t size) { snprintf(to, size, "%s", from); }

/* Lines that may stand below a GPU as well as below a MIG device. */
static int read_device_line(device *d, const char *key, const char *rest) {
    if (!strcmp(key, "name")) copy(d->name, rest, TEXT);
    else if (!strcmp(key, "memory")) d->memory = strtoull(rest, NULL, 10);
    else if (!strcmp(key, "utilisation")) d->utilisation = atoi(rest);
    else if (!strcmp(key, "error")) add_fault(d, rest);
    else if (!strcmp(key, "process")) add_process(d, rest);
    else return 0;
    return 1;
}

static void read_gpu_line(gpu *g, const char *key, const char *rest) {
    if (!strcmp(key, "minor")) g->minor = atoi(rest);
    else if (!strcmp(key, "bus")) copy(g->bus, rest, sizeof g->bus);
    else if (!strcmp(key, "mode"))
        g->has_mig = sscanf(rest, "%d %d", &g->mode, &g->pending_mode) == 2;
    else if (!strcmp(key, "remapped"))
        g->remaps = sscanf(rest, "%d %d %d %d", &g->remapped[0], &g->remapped[1], &g->remapped[2],
                           &g->remapped[3]) == 4;
    else if (!strcmp(key, "retired")) g->retires = 1, g->retired = atoi(rest);
    else if (!strcmp(key, "recovery")) g->recovery = atoi(rest);
    else if (!strcmp(key, "gpm")) g->has_gpm = atoi(rest);
    else if (!strcmp(key, "link") && g->link_count < MOST_LINKS) {
        link_end *l = &g->links[g->link_count];
        if (sscanf(rest, "%u %15s", &l->type, l->bus) == 2) g->link_count++;
    } else if (!strcmp(key, "profile")) {
        profile p = {.exists = 1};
        unsigned number;
        if (sscanf(rest, "%u %u %u %llu %95s", &number, &p.slices, &p.limit, &p.memory_mib,
                   p.name) == 5 && number < MOST_PROFILES) {
            p.id = number;
            g->profiles[number] = p;
        }
    }
}

static void read_event(const char *rest) {
    if (state.event_count == MOST_EVENTS) return;
    event *e = &state.events[state.event_count];
    if (sscanf(rest, "%llu %d %llu %llu %u %u", &e->number, &e->gpu, &e->type, &e->data,
               &e->instance, &e->compute_instance) == 6)
        state.event_count++;
}

static void read_lines(FILE *file) {
    char line[512];
    gpu *g = NULL;
    mig_device *m = NULL;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *rest = strchr(line, ' ');
        if (!rest) continue;
        *rest++ = 0;
        unsigned slot;
        char uuid[TEXT];
        if (!strcmp(line, "driver")) copy(state.driver, rest, TEXT);
        else if (!strcmp(line, "generation")) state.generation = atoi(rest) & 0xfff;
        else if (!strcmp(line, "event")) read_event(rest);
        else if (!strcmp(line, "gpu") && state.gpu_count < MOST_GPUS) {
            g = &state.gpus[state.gpu_count++];
            m = NULL;
            copy(g->device.uuid, rest, TEXT);
        } else if (g && !strcmp(line, "mig")) {
            if (sscanf(rest, "%u %95s", &slot, uuid) != 2 || slot >= MOST_MIG) continue;
            m = &g->mig[slot];
            m->exists = 1;
            copy(m->device.uuid, uuid, TEXT);
        } else if (m && !strcmp(line, "instance")) {
            sscanf(rest, "%u %u %u %u", &m->instance, &m->compute_instance, &m->instance_slices,
                   &m->slices);
        } else if (!read_device_line(m ? &m->device : g ? &g->device : &state.library, line, rest)
                   && g && !m)
            read_gpu_line(g, line, rest);
    }
}

/* Reads the file if it is another one than before. Writers replace it by renaming. */
static int refresh(void) {
    struct stat now;
    if (stat(path, &now)) return DRIVER_NOT_LOADED;
    if (now.st_ino == seen.st_ino && now.st_dev == seen.st_dev && now.st_size == seen.st_size &&
        now.st_mtim.tv_sec == seen.st_mtim.tv_sec && now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return OK;
    FILE *file = fopen(path, "re");
    if (!file) return DRIVER_NOT_LOADED;
    clear();
    read_lines(file);
    fclose(file);
    seen = now;
    return OK;
}

static void find_file(void) {
    const char *directory = getenv("DS01_PRETEND_GPUS");
    Dl_info here;
    memset(&seen, 0, sizeof seen);
    if (directory && *directory) {
        snprintf(path, sizeof path, "%s/state", directory);
    } else if (dladdr((void *)find_file, &here) && here.dli_fname) {
        const char *slash = strrchr(here.dli_fname, '/');
        int length = slash ? (int)(slash - here.dli_fname) : 1;
        snprintf(path, sizeof path, "%.*s/state", length, slash ? here.dli_fname : ".");
    }
}

/* -- What a call goes through first ---------------------------------------------------------- */

static int fault_of(const device *d, const char *call) {
    for (int i = 0; i < d->fault_count; i++)
        if (!strcmp(d->faults[i].call, call)) return d->faults[i].code;
    return OK;
}

/* What "*" on a GPU stands for: everything but finding it. */
static int fault_of_all(const device *d, const char *call) {
    if (strstr(call, "Handle") || !strcmp(call, "nvmlDeviceGetUUID")) return OK;
    return fault_of(d, "*");
}

static int begin(const char *call) {
    if (!users) return UNINITIALIZED;
    int code = refresh();
    if (code) return code;
    return fault_of(&state.library, call);
}

/* A GPU's handle says its index; a MIG device's ends with the partition that it was part of. */
static handle gpu_handle(int index) { return (handle)(uintptr_t)(0x10000000u + index); }
static handle mig_handle(int index, int slot) {
    return (handle)(uintptr_t)(0x20000000u + (state.generation << 16) + (index << 8) + slot);
}

static gpu *gpu_of(handle h, mig_device **m) {
    uintptr_t value = (uintptr_t)h;
    *m = NULL;
    if (value >= 0x10000000u && value < 0x10000000u + state.gpu_count)
        return &state.gpus[value - 0x10000000u];
    if (value < 0x20000000u || value >= 0x30000000u) return NULL;
    unsigned generation = value >> 16 & 0xfff, index = value >> 8 & 0xff, slot = value & 0xff;
    if (generation != state.generation || index >= (unsigned)state.gpu_count || slot >= MOST_MIG ||
        !state.gpus[index].mig[slot].exists)
        return NULL;
    *m = &state.gpus[index].mig[slot];
    return &state.gpus[index];
}

static int look_up(const char *call, handle h, gpu **g, mig_device **m) {
    int code = begin(call);
    if (code) return code;
    *g = gpu_of(h, m);
    if (!*g) return INVALID_ARGUMENT;
    if ((code = fault_of_all(&(*g)->device, call))) return code;
    if (!*m) return fault_of(&(*g)->device, call);
    if ((code = fault_of_all(&(*m)->device, call))) return code;
    return fault_of(&(*m)->device, call);
}

/* Opens a function that asks a device: from here on there are g, m (NULL for a GPU) and d. */
#define ASK(h)                                     \
    gpu *g;                                        \
    mig_device *m;                                 \
    pthread_mutex_lock(&lock);                     \
    int code = look_up(__func__, h, &g, &m);       \
    if (code) goto out;                            \
    device *d = m ? &m->device : &g->device;       \
    (void)d;
#define ANSWER                                     \
    out:                                           \
    pthread_mutex_unlock(&lock);                   \
    return code;
#define FAIL_IF(condition, with)                   \
    if (condition) {                               \
        code = with;                               \
        goto out;                                  \
    }
/* The same for a function that asks no device. */
#define ASK_LIBRARY                                \
    pthread_mutex_lock(&lock);                     \
    int code = begin(__func__);                    \
    if (code) goto out;

static int put(char *to, unsigned size, const char *text) {
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return OK;
}

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

/* -- Health and use -------------------------------------------------------------------------- */

int nvmlDeviceGetRemappedRows(handle h, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failure) {
    ASK(h)
    FAIL_IF(m || !g->remaps, NOT_SUPPORTED)
    *corrected = g->remapped[0];
    *uncorrected = g->remapped[1];
    *pending = g->remapped[2];
    *failure = g->remapped[3];
    ANSWER
}

int nvmlDeviceGetRetiredPagesPendingStatus(handle h, unsigned *pending) {
    ASK(h)
    FAIL_IF(m || !g->retires, NOT_SUPPORTED)
    *pending = g->retired;
    ANSWER
}

typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    unsigned type;
    int code;
    union {
        double real;
        unsigned number;
        unsigned long long large;
    } value;
} field_value;

int nvmlDeviceGetFieldValues(handle h, int count, field_value *values) {
    ASK(h)
    for (int i = 0; i < count; i++) {
        field_value *v = &values[i];
        char name[32];
        snprintf(name, sizeof name, "field-%u", v->field);
        memset(&v->value, 0, sizeof v->value);
        v->type = 1;
        v->code = fault_of(d, name);
        if (!v->code && v->field != 230) v->code = NOT_SUPPORTED;
        if (!v->code) v->value.number = g->recovery;
    }
    ANSWER
}

typedef struct {
    unsigned gpu, memory;
} utilisation;

int nvmlDeviceGetUtilizationRates(handle h, utilisation *rates) {
    ASK(h)
    FAIL_IF(m || g->mode, NOT_SUPPORTED)
    rates->gpu = d->utilisation;
    rates->memory = d->utilisation / 2;
    ANSWER
}

typedef struct {
    unsigned pid;
    unsigned long long memory;
    unsigned instance, compute_instance;
} process_info;

static int list(const char *kind, const device *d, const mig_device *m, unsigned *count,
                process_info *infos) {
    unsigned room = *count, found = 0;
    for (int i = 0; i < d->process_count; i++) {
        const process *p = &d->processes[i];
        if (strcmp(p->kind, kind)) continue;
        if (infos && found < room)
            infos[found] = (process_info){.pid = p->pid,
                                          .memory = p->memory < 0 ? ~0ull : (unsigned long long)p->memory,
                                          .instance = m ? m->instance : ~0u,
                                          .compute_instance = m ? m->compute_instance : ~0u};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(handle h, unsigned *count, process_info *infos) {
    ASK(h)
    code = list("compute", d, m, count, infos);
    ANSWER
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(handle h, unsigned *count, process_info *infos) {
    ASK(h)
    code = list("graphics", d, m, count, infos);
    ANSWER
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(handle h, unsigned *count, process_info *infos) {
    ASK(h)
    code = list("mps", d, m, count, infos);
    ANSWER
}

/* -- Samples of utilisation, from Hopper on -------------------------------------------------- */

typedef struct {
    int taken, utilisation;
} sample;

typedef struct {
    unsigned id;
    int code;
    double value;
    const char *names[3];
} metric;

typedef struct {
    unsigned version, count;
    sample *first, *second;
    metric metrics[];
} metrics_request;

typedef struct {
    unsigned version, supported;
} gpm_support;

int nvmlGpmQueryDeviceSupport(handle h, gpm_support *support) {
    ASK(h)
    support->supported = g->has_gpm;
    ANSWER
}

int nvmlGpmSampleAlloc(sample **s) {
    *s = calloc(1, sizeof **s);
    return *s ? OK : 20;
}

int nvmlGpmSampleFree(sample *s) {
    free(s);
    return OK;
}

int nvmlGpmSampleGet(handle h, sample *s) {
    ASK(h)
    FAIL_IF(m || !g->has_gpm, NOT_SUPPORTED)
    *s = (sample){1, d->utilisation};
    ANSWER
}

int nvmlGpmMigSampleGet(handle h, unsigned instance, sample *s) {
    ASK(h)
    FAIL_IF(m || !g->has_gpm, NOT_SUPPORTED)
    code = NOT_FOUND;
    sample taken = {1, 0};
    for (int j = 0; j < MOST_MIG; j++) {
        mig_device *one = &g->mig[j];
        if (!one->exists || one->instance != instance) continue;
        code = fault_of(&one->device, __func__);
        if (one->device.utilisation > taken.utilisation)
            taken.utilisation = one->device.utilisation;
    }
    *s = taken;
    ANSWER
}

int nvmlGpmMetricsGet(metrics_request *request) {
    ASK_LIBRARY
    FAIL_IF(!request->first || !request->second, INVALID_ARGUMENT)
    FAIL_IF(!request->first->taken || !request->second->taken, INVALID_ARGUMENT)
    for (unsigned i = 0; i < request->count; i++) {
        request->metrics[i].code = OK;
        request->metrics[i].value = request->second->utilisation;
    }
    ANSWER
}

/* -- Events ---------------------------------------------------------------------------------- */

typedef struct {
    unsigned long long types[MOST_GPUS], after[MOST_GPUS];
} event_set;

typedef struct {
    handle device;
    unsigned long long type, data;
    unsigned instance, compute_instance;
} event_data;

static unsigned long long last_event(void) {
    return state.event_count ? state.events[state.event_count - 1].number : 0;
}

int nvmlEventSetCreate(event_set **set) {
    ASK_LIBRARY
    *set = calloc(1, sizeof **set);
    ANSWER
}

int nvmlEventSetFree(event_set *set) {
    free(set);
    return OK;
}

int nvmlDeviceGetSupportedEventTypes(handle h, unsigned long long *types) {
    ASK(h)
    *types = m ? 0 : 0x1f;
    ANSWER
}

int nvmlDeviceRegisterEvents(handle h, unsigned long long types, event_set *set) {
    ASK(h)
    FAIL_IF(m || types & ~0x1full, NOT_SUPPORTED)
    int index = g - state.gpus;
    if (!set->types[index]) set->after[index] = last_event();
    set->types[index] |= types;
    ANSWER
}

static int next_event(event_set *set, event_data *data) {
    for (int i = 0; i < state.event_count; i++) {
        event *e = &state.events[i];
        if (e->gpu < 0 || e->gpu >= state.gpu_count || !(set->types[e->gpu] & e->type) ||
            e->number <= set->after[e->gpu])
            continue;
        set->after[e->gpu] = e->number;
        *data = (event_data){gpu_handle(e->gpu), e->type, e->data, e->instance,
                             e->compute_instance};
        return OK;
    }
    return TIMEOUT;
}

int nvmlEventSetWait_v2(event_set *set, event_data *data, unsigned timeout_ms) {
    for (unsigned waited = 0;; waited += 10) {
        pthread_mutex_lock(&lock);
        int code = begin(__func__);
        if (!code) code = next_event(set, data);
        pthread_mutex_unlock(&lock);
        if (code != TIMEOUT || waited >= timeout_ms) return code;
        usleep(10000);
    }
}
