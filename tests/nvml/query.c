/* What nvidia-smi --query-gpu and --query-compute-apps do, and no more: load the library, ask every
 * device, print CSV, end. The peer of the benchmark accelerator-collect, since NVIDIA's own program
 * does not run without a driver. */
#include <stdio.h>

typedef unsigned long long u64;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } Info;
int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetCount_v2(unsigned *);
int nvmlDeviceGetHandleByIndex_v2(unsigned, void **);
int nvmlDeviceGetName(void *, char *, unsigned);
int nvmlDeviceGetMemoryInfo(void *, u64 *);
int nvmlDeviceGetUtilizationRates(void *, unsigned *);
int nvmlDeviceGetPowerUsage(void *, unsigned *);
int nvmlDeviceGetTemperature(void *, int, unsigned *);
int nvmlDeviceGetComputeRunningProcesses_v3(void *, unsigned *, Info *);

int main(void) {
    unsigned count = 0;
    if (nvmlInit_v2() || nvmlDeviceGetCount_v2(&count)) return 1;
    for (unsigned i = 0; i < count; i++) {
        void *device;
        char name[96];
        u64 memory[3];
        unsigned rates[2], power, temperature, processes = 256;
        Info found[256];
        if (nvmlDeviceGetHandleByIndex_v2(i, &device) || nvmlDeviceGetName(device, name, sizeof name) ||
            nvmlDeviceGetMemoryInfo(device, memory) || nvmlDeviceGetUtilizationRates(device, rates) ||
            nvmlDeviceGetPowerUsage(device, &power) || nvmlDeviceGetTemperature(device, 0, &temperature) ||
            nvmlDeviceGetComputeRunningProcesses_v3(device, &processes, found))
            return 1;
        printf("%u, %s, %llu, %llu, %u, %u, %u, %u\n", i, name, memory[0], memory[2], rates[0], rates[1],
               power, temperature);
        for (unsigned p = 0; p < processes; p++) printf("%u, %u, %llu\n", i, found[p].pid, found[p].used);
    }
    return nvmlShutdown();
}
