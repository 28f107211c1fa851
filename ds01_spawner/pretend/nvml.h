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
#ifndef DS01_NVML_H
#define DS01_NVML_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

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

/* Nothing but NVML's own functions is to be seen from outside. */
#pragma GCC visibility push(hidden)

struct machine {
    char driver[TEXT];
    unsigned generation;
    device library; /* its faults are those of every call */
    gpu gpus[MOST_GPUS];
    int gpu_count;
    event events[MOST_EVENTS];
    int event_count;
};

extern struct machine state;
extern pthread_mutex_t lock;
extern int users; /* how often the library was initialised and not shut down */

void find_file(void);
int refresh(void);
int fault_of(const device *d, const char *call);
int begin(const char *call);
int look_up(const char *call, handle h, gpu **g, mig_device **m);
handle gpu_handle(int index);
handle mig_handle(int index, int slot);
int put(char *to, unsigned size, const char *text);

#pragma GCC visibility pop

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

#endif
