/* NVML: health, processes, utilisation and events. See nvml.h. */
#define _GNU_SOURCE
#include "nvml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
