/* Two GPUs below nvidia-ml-py, for tests: 0 is healthy, 1 fell off the bus.
 * Struct layouts and codes are those of nvml.h; nvmlDeviceGetPowerUsage is left out, as an old
 * driver would. STUB_NO_MEMORY makes memory unsupported. */
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };
enum { GPUS = 2, LOST = 1 };

typedef struct { int index; } device;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned version; int sensor; int temperature; } temperature;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_v3;

static device devices[GPUS] = {{0}, {1}};
static int lost(device *d) { return d->index == LOST; }
static int text(char *out, unsigned size, const char *value) {
    strncpy(out, value, size);
    return SUCCESS;
}

EXPORT int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
EXPORT int nvmlShutdown(void) { return SUCCESS; }
EXPORT const char *nvmlErrorString(int code) { return code == GPU_IS_LOST ? "GPU is lost" : "error"; }
EXPORT int nvmlDeviceGetCount_v2(unsigned *count) { *count = GPUS; return SUCCESS; }
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **out) {
    *out = &devices[index];
    return SUCCESS;
}
EXPORT int nvmlDeviceGetName(device *d, char *name, unsigned size) {
    return text(name, size, "NVIDIA H100 80GB HBM3"); /* kept by the driver, also of a lost one */
}
EXPORT int nvmlDeviceGetUUID(device *d, char *uuid, unsigned size) {
    return lost(d) ? GPU_IS_LOST : text(uuid, size, "GPU-00000000-0000-0000-0000-000000000000");
}
EXPORT int nvmlDeviceGetMemoryInfo_v2(device *d, memory_v2 *m) {
    if (lost(d)) return GPU_IS_LOST;
    if (getenv("STUB_NO_MEMORY")) return NOT_SUPPORTED;
    m->total = 85520809984ULL; m->reserved = 600000000ULL; m->used = 41000000000ULL;
    m->free = m->total - m->used - m->reserved;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetUtilizationRates(device *d, utilization *u) {
    if (lost(d)) return GPU_IS_LOST;
    u->gpu = 97; u->memory = 61;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetTemperatureV(device *d, temperature *t) {
    if (lost(d)) return GPU_IS_LOST;
    t->temperature = 64;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(device *d, unsigned *count, process_v3 *out) {
    if (lost(d)) return GPU_IS_LOST;
    unsigned room = *count;
    *count = 2;
    if (out == NULL || room < 2) return INSUFFICIENT_SIZE;
    out[0] = (process_v3){.pid = 4711, .used = 40000000000ULL, .gi = ~0u, .ci = ~0u};
    out[1] = (process_v3){.pid = 4712, .used = ~0ULL, .gi = ~0u, .ci = ~0u}; /* not available */
    return SUCCESS;
}
