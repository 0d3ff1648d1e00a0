/* A stand-in for the NVIDIA driver's libnvidia-ml.so.1, driven by a state file.
 *
 * $FAKE_NVML_STATE names the file (states/README.md describes it). It is read again whenever it
 * has changed, so a test can let a GPU get lost in the middle of a run. Every device's name begins
 * with "Stand-in ", so that nothing it says passes for a measurement.
 *
 * With -DOLD_DRIVER the functions that old drivers lack are not there.
 *
 * Signatures, structures and error codes are those of NVIDIA's NVML API reference.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10,
};

#define GPUS 32
#define PROCESSES 256
#define MIB 1048576ull
#define UNKNOWN (-1)

typedef unsigned long long u64;
typedef struct { unsigned pid; u64 used; int kind; } Process;
typedef struct {
    char name[96];
    int parent;                 /* index of the GPU that a MIG device is a part of, else UNKNOWN */
    int error;
    u64 total, reserved, used;
    int gpu, memory, encoder, decoder, power, temperature, clocks[4], supported, throttling;
    int corrected, uncorrected, events, xids[8], xid_count, lists_processes, process_count;
    Process processes[PROCESSES];
} Gpu;

static Gpu gpus[GPUS];
static int gpu_count, failure, cuda, sessions, told[GPUS], registered[GPUS];
static char driver[80];
static struct stat seen;

static void reset(Gpu *g) {
    memset(g, 0, sizeof *g);
    g->parent = g->gpu = g->memory = g->encoder = g->decoder = g->power = g->temperature = UNKNOWN;
    g->supported = g->throttling = g->corrected = g->uncorrected = UNKNOWN;
    for (int i = 0; i < 4; i++) g->clocks[i] = UNKNOWN;
}

static void line(const char *text) {
    char word[40];
    int used = 0;
    Gpu *g = gpu_count ? &gpus[gpu_count - 1] : NULL;
    if (sscanf(text, "%39s %n", word, &used) < 1 || word[0] == '#') return;
    const char *rest = text + used;
#define IS(name) (strcmp(word, name) == 0)
    if (IS("driver")) snprintf(driver, sizeof driver, "%s", rest);
    else if (IS("cuda")) cuda = atoi(rest);
    else if (IS("failure")) failure = atoi(rest);
    else if ((IS("gpu") || IS("mig")) && gpu_count < GPUS) {
        int parent = UNKNOWN;
        if (IS("mig"))
            for (int i = 0; i < gpu_count; i++) if (gpus[i].parent == UNKNOWN) parent = i;
        g = &gpus[gpu_count++];
        reset(g);
        g->parent = parent;
        snprintf(g->name, sizeof g->name, "Stand-in %s", rest);
    } else if (g == NULL) return;
    else if (IS("error")) g->error = atoi(rest);
    else if (IS("memory_mib")) {
        u64 total, reserved, used_mib;
        if (sscanf(rest, "%llu %llu %llu", &total, &reserved, &used_mib) == 3) {
            g->total = total * MIB; g->reserved = reserved * MIB; g->used = used_mib * MIB;
        }
    } else if (IS("utilization")) sscanf(rest, "%d %d", &g->gpu, &g->memory);
    else if (IS("encoder")) g->encoder = atoi(rest);
    else if (IS("decoder")) g->decoder = atoi(rest);
    else if (IS("power_mw")) g->power = atoi(rest);
    else if (IS("temperature")) g->temperature = atoi(rest);
    else if (IS("clocks_mhz")) {
        int *c = g->clocks;
        sscanf(rest, "%d %d %d %d", c, c + 1, c + 2, c + 3);
    } else if (IS("throttling")) sscanf(rest, "%i %i", &g->supported, &g->throttling);
    else if (IS("ecc")) sscanf(rest, "%d %d", &g->corrected, &g->uncorrected);
    else if (IS("events")) g->events = 1;
    else if (IS("xid") && g->xid_count < 8) g->xids[g->xid_count++] = atoi(rest);
    else if (IS("processes")) g->lists_processes = 1;
    else if (IS("process") && g->process_count < PROCESSES) {
        Process *p = &g->processes[g->process_count++];
        char kind[8], mib[24];
        if (sscanf(rest, "%u %23s %7s", &p->pid, mib, kind) != 3) { g->process_count--; return; }
        p->used = mib[0] == '-' ? ~0ull : strtoull(mib, NULL, 10) * MIB;
        p->kind = (strchr(kind, 'C') ? 1 : 0) | (strchr(kind, 'G') ? 2 : 0);
    }
}

static void load(void) {
    const char *path = getenv("FAKE_NVML_STATE");
    struct stat now;
    if (path == NULL || stat(path, &now) != 0) { failure = DRIVER_NOT_LOADED; return; }
    if (now.st_ino == seen.st_ino && now.st_size == seen.st_size &&
        now.st_mtim.tv_sec == seen.st_mtim.tv_sec && now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return;
    FILE *file = fopen(path, "r");
    if (file == NULL) { failure = DRIVER_NOT_LOADED; return; }
    seen = now;
    gpu_count = failure = cuda = 0;
    memset(told, 0, sizeof told);
    driver[0] = 0;
    char text[256];
    while (fgets(text, sizeof text, file)) {
        text[strcspn(text, "\n")] = 0;
        line(text);
    }
    fclose(file);
}

/* What NVML checks before any answer: the session, the driver, the device. */
static int check(void) {
    load();
    if (!sessions) return UNINITIALIZED;
    return failure;
}
static int find(void *handle, Gpu **found) {
    int error = check();
    if (error) return error;
    long index = (long)handle - 1;
    if (index < 0 || index >= gpu_count) return INVALID_ARGUMENT;
    *found = &gpus[index];
    return (*found)->error;
}
#define DEVICE Gpu *g; int error = find(handle, &g); if (error) return error
#define ANSWER(value, out) if ((value) == UNKNOWN) return NOT_SUPPORTED; *(out) = (value); return SUCCESS

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    load();
    if (failure) return failure;
    sessions++;
    memset(registered, 0, sizeof registered);
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) {
    if (!sessions) return UNINITIALIZED;
    sessions--;
    return SUCCESS;
}
const char *nvmlErrorString(int error) {
    static char text[40];
    snprintf(text, sizeof text, "stand-in's error %d", error);
    return text;
}
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    int error = check();
    if (error) return error;
    snprintf(text, length, "%s", driver);
    return SUCCESS;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    int error = check();
    if (error) return error;
    *version = cuda;
    return cuda ? SUCCESS : NOT_FOUND;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    int error = check();
    if (error) return error;
    *count = 0;
    for (int i = 0; i < gpu_count; i++) *count += gpus[i].parent == UNKNOWN;
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    int error = check();
    if (error) return error;
    for (int i = 0; i < gpu_count; i++)
        if (gpus[i].parent == UNKNOWN && index-- == 0) {
            *handle = (void *)(long)(i + 1);
            return gpus[i].error;
        }
    return INVALID_ARGUMENT;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    DEVICE;
    snprintf(text, length, "%s", g->name);
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(void *handle, u64 *memory) {
    DEVICE;
    if (!g->total) return NOT_SUPPORTED;
    memory[0] = g->total;
    memory[1] = g->total - g->reserved - g->used;
    memory[2] = g->reserved + g->used; /* version 1 knows nothing of what is reserved */
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(void *handle, unsigned *rates) {
    DEVICE;
    if (g->gpu == UNKNOWN) return NOT_SUPPORTED;
    rates[0] = g->gpu;
    rates[1] = g->memory;
    return SUCCESS;
}
int nvmlDeviceGetEncoderUtilization(void *handle, unsigned *percent, unsigned *period) {
    DEVICE;
    *period = 167000;
    ANSWER(g->encoder, percent);
}
int nvmlDeviceGetDecoderUtilization(void *handle, unsigned *percent, unsigned *period) {
    DEVICE;
    *period = 167000;
    ANSWER(g->decoder, percent);
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) { DEVICE; ANSWER(g->power, milliwatts); }
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
    DEVICE;
    (void)sensor;
    ANSWER(g->temperature, celsius);
}
int nvmlDeviceGetClockInfo(void *handle, int domain, unsigned *megahertz) {
    DEVICE;
    if (domain < 0 || domain > 3) return INVALID_ARGUMENT;
    ANSWER(g->clocks[domain], megahertz);
}
int nvmlDeviceGetSupportedClocksThrottleReasons(void *handle, u64 *bits) { DEVICE; ANSWER(g->supported, bits); }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, u64 *bits) { DEVICE; ANSWER(g->throttling, bits); }
int nvmlDeviceGetTotalEccErrors(void *handle, int kind, int counter, u64 *count) {
    DEVICE;
    (void)counter;
    int errors = kind ? g->uncorrected : g->corrected;
    ANSWER(errors, count);
}
int nvmlEventSetCreate(void **set) { *set = &gpus; return check(); }
int nvmlEventSetFree(void *set) { (void)set; return SUCCESS; }
int nvmlDeviceRegisterEvents(void *handle, u64 types, void *set) {
    DEVICE;
    (void)types; (void)set;
    if (!g->events) return NOT_SUPPORTED;
    registered[g - gpus] = 1;
    return SUCCESS;
}
typedef struct { void *device; u64 type, data; unsigned gpu_instance, compute_instance; } Event;
int nvmlEventSetWait_v2(void *set, Event *event, unsigned milliseconds) {
    (void)set; (void)milliseconds;
    int error = check();
    if (error) return error;
    for (int i = 0; i < gpu_count; i++)
        if (registered[i] && told[i] < gpus[i].xid_count) {
            *event = (Event){(void *)(long)(i + 1), 8, gpus[i].xids[told[i]++], ~0u, ~0u};
            return SUCCESS;
        }
    return TIMEOUT;
}

typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } Info;
static int running(void *handle, unsigned *count, Info *found, int kind) {
    DEVICE;
    if (!g->lists_processes) return NOT_SUPPORTED;
    unsigned room = *count;
    *count = 0;
    for (int i = 0; i < g->process_count; i++) {
        if (!(g->processes[i].kind & kind)) continue;
        if (*count < room && found)
            found[*count] = (Info){g->processes[i].pid, g->processes[i].used, ~0u, ~0u};
        ++*count;
    }
    return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
}
#ifndef OLD_DRIVER
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, Info *found) {
    return running(handle, count, found, 1);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, Info *found) {
    return running(handle, count, found, 2);
}
typedef struct { unsigned version; u64 total, reserved, free, used; } Memory;
int nvmlDeviceGetMemoryInfo_v2(void *handle, Memory *memory) {
    DEVICE;
    if (!g->total) return NOT_SUPPORTED;
    memory->total = g->total;
    memory->reserved = g->reserved;
    memory->used = g->used;
    memory->free = g->total - g->reserved - g->used;
    return SUCCESS;
}
int nvmlDeviceGetSupportedClocksEventReasons(void *handle, u64 *bits) {
    return nvmlDeviceGetSupportedClocksThrottleReasons(handle, bits);
}
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, u64 *bits) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(handle, bits);
}
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    DEVICE;
    *current = *pending = 0;
    for (int i = 0; i < gpu_count; i++) if (&gpus[i] != g && gpus[i].parent == g - gpus) *current = *pending = 1;
    return g->parent == UNKNOWN ? SUCCESS : NOT_SUPPORTED;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) { DEVICE; *count = 7; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **part) {
    DEVICE;
    for (int i = 0; i < gpu_count; i++)
        if (gpus[i].parent == g - gpus && index-- == 0) {
            *part = (void *)(long)(i + 1);
            return SUCCESS;
        }
    return NOT_FOUND;
}
#else
int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *count, Info *found) {
    return running(handle, count, found, 1);
}
int nvmlDeviceGetGraphicsRunningProcesses_v2(void *handle, unsigned *count, Info *found) {
    return running(handle, count, found, 2);
}
#endif
