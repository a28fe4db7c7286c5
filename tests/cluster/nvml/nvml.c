/* A stand-in for NVIDIA's libnvidia-ml.so.1: the calls that gpuhub makes through nvidia-ml-py, and no others.
 *
 * What it says follows from what really runs. A folder of small files (GPUHUB_NVML_STATE, else /run/gpuhub-nvml)
 * names the GPUs; a process uses a GPU while it holds a POSIX lock on a file of its own in that GPU's folder
 * `use`, as it would hold a CUDA context, and how much it uses is its share of a CPU, unless the file says
 * otherwise. So a kernel that computes is busy, one that waits is silent, and one that dies is gone.
 *
 *   driver                   optional: not-loaded | unknown | timeout SECONDS
 *   gpus/I/uuid name memory  memory in bytes; the name says "simulated"
 *   gpus/I/minor             optional
 *   gpus/I/fail              optional: lost | not-supported | timeout SECONDS | no-processes
 *   gpus/I/use/ANY           lines: memory BYTES, utilisation PERCENT
 *   gpus/I/mig/N/...         the same for part N of a divided GPU
 *
 * It keeps the contract of the header nvml.h where gpuhub relies on it: which error, which sizes, which struct.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15, UNKNOWN = 999
};
enum { GPUS = 64, PARTS = 8, USERS = 256, BUFFER = 120 };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } rates_t;
typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; } process_t;
typedef struct { unsigned long long at; union { double d; unsigned u; unsigned long long l; } value; } sample_t;
typedef struct { unsigned pid; unsigned long long at; unsigned sm, memory, encoder, decoder; } use_t;

typedef struct {
    unsigned pid;
    unsigned long long memory, ticks, at_us;
    double percent;
} user_t;

typedef struct device {
    int index, part; /* part: -1 for a whole GPU */
    int users;
    user_t user[USERS];
    unsigned long long looked_us;
    double percent;
    sample_t buffer[BUFFER];
    int buffered;
} device_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int initialized;
static device_t whole[GPUS], parts[GPUS][PARTS];

/* --- the folder ------------------------------------------------------------------------------------------ */

static const char *state_folder(void) {
    const char *said = getenv("GPUHUB_NVML_STATE");
    return said && *said ? said : "/run/gpuhub-nvml";
}

static void device_path(const device_t *device, const char *name, char *path) {
    if (device->part < 0)
        snprintf(path, PATH_MAX, "%s/gpus/%d/%s", state_folder(), device->index, name);
    else
        snprintf(path, PATH_MAX, "%s/gpus/%d/mig/%d/%s", state_folder(), device->index, device->part, name);
}

/* Read a small file, without the newline at its end. Returns 0 where there is none. */
static int read_file(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, size - 1);
    close(fd);
    if (got < 0)
        return 0;
    text[got] = 0;
    text[strcspn(text, "\r\n")] = 0;
    return 1;
}

static int device_file(const device_t *device, const char *name, char *text, size_t size) {
    char path[PATH_MAX];
    device_path(device, name, path);
    return read_file(path, text, size);
}

/* What a file `driver` or `fail` orders; `other` is what a word means that only the caller knows. */
static int failure(const char *text) {
    double seconds;
    if (sscanf(text, "timeout %lf", &seconds) == 1) {
        struct timespec nap = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
        nanosleep(&nap, NULL);
        return TIMEOUT;
    }
    if (!strcmp(text, "not-loaded"))
        return DRIVER_NOT_LOADED;
    if (!strcmp(text, "lost"))
        return GPU_IS_LOST;
    if (!strcmp(text, "unknown"))
        return UNKNOWN;
    return OK;
}

static int driver_trouble(void) {
    char path[PATH_MAX], text[64];
    struct stat seen;
    snprintf(path, sizeof path, "%s/gpus", state_folder());
    if (stat(path, &seen))
        return DRIVER_NOT_LOADED;
    snprintf(path, sizeof path, "%s/driver", state_folder());
    return read_file(path, text, sizeof text) ? failure(text) : OK;
}

/* 0: it answers. `measured`: the call is one of those that not-supported means. */
static int device_trouble(device_t *device, int measured) {
    char text[64];
    device_t of_whole = {.index = device->index, .part = -1};
    if (!initialized)
        return UNINITIALIZED;
    int trouble = driver_trouble();
    if (trouble)
        return trouble;
    if (!device_file(&of_whole, "uuid", text, sizeof text) || !device_file(device, "uuid", text, sizeof text))
        return GPU_IS_LOST;
    if (!device_file(&of_whole, "fail", text, sizeof text))
        return OK;
    if (measured && !strcmp(text, "not-supported"))
        return NOT_SUPPORTED;
    return failure(text);
}

static int gpu_count(void) {
    char text[64];
    int count = 0;
    for (; count < GPUS; count++) {
        device_t device = {.index = count, .part = -1};
        if (!device_file(&device, "uuid", text, sizeof text))
            break;
    }
    return count;
}

static int part_count(int index) {
    char text[64];
    int count = 0;
    for (; count < PARTS; count++) {
        device_t device = {.index = index, .part = count};
        if (!device_file(&device, "uuid", text, sizeof text))
            break;
    }
    return count;
}

/* --- who uses it ------------------------------------------------------------------------------------------ */

static unsigned long long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (unsigned long long)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static unsigned long long ticks_of(unsigned pid) {
    char path[64], text[1024];
    unsigned long long user, system;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    if (!read_file(path, text, sizeof text))
        return 0;
    char *rest = strrchr(text, ')');
    if (!rest || sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
        return 0;
    return user + system;
}

static user_t *known(device_t *device, unsigned pid) {
    for (int i = 0; i < device->users; i++)
        if (device->user[i].pid == pid)
            return &device->user[i];
    return NULL;
}

static void take_file(device_t *device, int folder, const char *name, unsigned long long at, user_t *found, int *count) {
    /* Whoever made the file is not trusted: no links, no pipes that block. */
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0)
        return;
    struct flock held = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char text[512];
    ssize_t got = fcntl(fd, F_GETLK, &held) ? -1 : read(fd, text, sizeof text - 1);
    close(fd);
    if (got < 0 || held.l_type == F_UNLCK || held.l_pid <= 0)
        return;
    text[got] = 0;
    for (int i = 0; i < *count; i++)
        if (found[i].pid == (unsigned)held.l_pid)
            return;
    user_t user = {.pid = held.l_pid, .ticks = ticks_of(held.l_pid), .at_us = at};
    user_t *before = known(device, user.pid);
    if (before && at > before->at_us && user.ticks >= before->ticks)
        user.percent = 100.0 * (user.ticks - before->ticks) / sysconf(_SC_CLK_TCK) / ((at - before->at_us) / 1e6);
    if (user.percent < 3) /* a process that waits still wakes up now and then */
        user.percent = 0;
    char *place = NULL;
    for (char *line = strtok_r(text, "\n", &place); line; line = strtok_r(NULL, "\n", &place)) {
        sscanf(line, "memory %llu", &user.memory);
        sscanf(line, "utilisation %lf", &user.percent);
    }
    user.percent = user.percent > 100 ? 100 : user.percent < 0 ? 0 : user.percent;
    found[(*count)++] = user;
}

/* Look anew, unless somebody did a moment ago: one look of the caller is several calls. */
static void look(device_t *device) {
    unsigned long long at = now_us();
    if (device->looked_us && at - device->looked_us < 100000)
        return;
    static user_t found[USERS];
    int count = 0;
    char path[PATH_MAX];
    device_path(device, "use", path);
    DIR *folder = opendir(path);
    if (folder) {
        struct dirent *entry;
        while (count < USERS && (entry = readdir(folder)))
            if (entry->d_name[0] != '.')
                take_file(device, dirfd(folder), entry->d_name, at, found, &count);
        closedir(folder);
    }
    memcpy(device->user, found, sizeof(user_t) * count);
    device->users = count;
    device->looked_us = at;
    device->percent = 0;
    for (int i = 0; i < count; i++)
        device->percent += found[i].percent;
    if (device->percent > 100)
        device->percent = 100;
    if (device->buffered == BUFFER) {
        memmove(device->buffer, device->buffer + 1, sizeof(sample_t) * (BUFFER - 1));
        device->buffered--;
    }
    device->buffer[device->buffered].at = at;
    device->buffer[device->buffered++].value.u = (unsigned)(device->percent + 0.5);
}

/* --- the library ------------------------------------------------------------------------------------------- */

#define LOCKED(body)                    \
    do {                                \
        pthread_mutex_lock(&lock);      \
        int result_ = (body);           \
        pthread_mutex_unlock(&lock);    \
        return result_;                 \
    } while (0)

static int copy(char *target, unsigned size, const char *text) {
    if (strlen(text) + 1 > size)
        return INSUFFICIENT_SIZE;
    strcpy(target, text);
    return OK;
}

static int init(void) {
    int trouble = driver_trouble();
    if (!trouble)
        initialized++;
    return trouble;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; LOCKED(init()); }
int nvmlInit_v2(void) { LOCKED(init()); }

static int shutdown_it(void) {
    if (!initialized)
        return UNINITIALIZED;
    initialized--;
    return OK;
}

int nvmlShutdown(void) { LOCKED(shutdown_it()); }

const char *nvmlErrorString(int result) {
    switch (result) {
    case OK: return "The operation was successful";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case TIMEOUT: return "Timeout";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

static int driver_version(char *text, unsigned size) {
    return !initialized ? UNINITIALIZED : copy(text, size, "580.0-simulated");
}

int nvmlSystemGetDriverVersion(char *text, unsigned size) { LOCKED(driver_version(text, size)); }

static int count_devices(unsigned *count) {
    if (!initialized)
        return UNINITIALIZED;
    int trouble = driver_trouble();
    if (!trouble)
        *count = gpu_count();
    return trouble;
}

int nvmlDeviceGetCount_v2(unsigned *count) { LOCKED(count_devices(count)); }

static int by_index(unsigned index, device_t **device) {
    if (!initialized)
        return UNINITIALIZED;
    if (index >= (unsigned)gpu_count())
        return INVALID_ARGUMENT;
    whole[index].index = index;
    whole[index].part = -1;
    *device = &whole[index];
    return device_trouble(*device, 0);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t **device) { LOCKED(by_index(index, device)); }

static int text_of(device_t *device, const char *file, char *text, unsigned size) {
    char read[256];
    int trouble = device_trouble(device, 0);
    if (trouble)
        return trouble;
    return device_file(device, file, read, sizeof read) ? copy(text, size, read) : UNKNOWN;
}

int nvmlDeviceGetUUID(device_t *device, char *text, unsigned size) { LOCKED(text_of(device, "uuid", text, size)); }
int nvmlDeviceGetName(device_t *device, char *text, unsigned size) { LOCKED(text_of(device, "name", text, size)); }

static int minor_number(device_t *device, unsigned *minor) {
    char text[64];
    int trouble = device_trouble(device, 0);
    if (trouble)
        return trouble;
    if (device->part >= 0)
        return NOT_SUPPORTED;
    *minor = device_file(device, "minor", text, sizeof text) ? strtoul(text, NULL, 10) : (unsigned)device->index;
    return OK;
}

int nvmlDeviceGetMinorNumber(device_t *device, unsigned *minor) { LOCKED(minor_number(device, minor)); }

static int memory_info(device_t *device, memory_t *memory) {
    char text[64];
    int trouble = device_trouble(device, 0);
    if (trouble)
        return trouble;
    if (!device_file(device, "memory", text, sizeof text))
        return UNKNOWN;
    look(device);
    memory->total = strtoull(text, NULL, 10);
    memory->used = 0;
    for (int i = 0; i < device->users; i++)
        memory->used += device->user[i].memory;
    if (memory->used > memory->total)
        memory->used = memory->total;
    memory->free = memory->total - memory->used;
    return OK;
}

int nvmlDeviceGetMemoryInfo(device_t *device, memory_t *memory) { LOCKED(memory_info(device, memory)); }

/* The real one does not tell how busy a part is, nor a GPU that is divided. */
static int measured(device_t *device) {
    int trouble = device_trouble(device, 1);
    if (trouble)
        return trouble;
    if (device->part >= 0 || part_count(device->index))
        return NOT_SUPPORTED;
    look(device);
    return OK;
}

static int utilisation(device_t *device, rates_t *rates) {
    int trouble = measured(device);
    if (!trouble) {
        rates->gpu = (unsigned)(device->percent + 0.5);
        rates->memory = 0;
    }
    return trouble;
}

int nvmlDeviceGetUtilizationRates(device_t *device, rates_t *rates) { LOCKED(utilisation(device, rates)); }

static int samples(device_t *device, int kind, unsigned long long since, int *type, unsigned *count, sample_t *into) {
    int trouble = measured(device);
    if (trouble)
        return trouble;
    if (kind != 1) /* NVML_GPU_UTILIZATION_SAMPLES */
        return NOT_SUPPORTED;
    int first = 0;
    while (first < device->buffered && device->buffer[first].at <= since)
        first++;
    if (first == device->buffered)
        return NOT_FOUND;
    unsigned there = device->buffered - first;
    *type = 1; /* NVML_VALUE_TYPE_UNSIGNED_INT */
    if (into) {
        if (*count < there)
            return INSUFFICIENT_SIZE;
        memcpy(into, device->buffer + first, sizeof(sample_t) * there);
    }
    *count = there;
    return OK;
}

int nvmlDeviceGetSamples(
    device_t *device, int kind, unsigned long long since, int *type, unsigned *count, sample_t *into
) {
    LOCKED(samples(device, kind, since, type, count, into));
}

static int processes(device_t *device, unsigned *count, process_t *into) {
    char text[64];
    int trouble = device_trouble(device, 1);
    if (trouble)
        return trouble;
    device_t of_whole = {.index = device->index, .part = -1};
    if (device_file(&of_whole, "fail", text, sizeof text) && !strcmp(text, "no-processes"))
        return NOT_SUPPORTED;
    look(device);
    if (*count < (unsigned)device->users) {
        *count = device->users;
        return INSUFFICIENT_SIZE;
    }
    *count = device->users;
    for (int i = 0; into && i < device->users; i++)
        into[i] = (process_t){device->user[i].pid, device->user[i].memory, 0xffffffff, 0xffffffff};
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device_t *device, unsigned *count, process_t *into) {
    LOCKED(processes(device, count, into));
}

static int no_graphics(device_t *device, unsigned *count) {
    *count = 0;
    return device_trouble(device, 1);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(device_t *device, unsigned *count, process_t *into) {
    (void)into;
    LOCKED(no_graphics(device, count));
}

static int use_by_process(device_t *device, use_t *into, unsigned *count, unsigned long long since) {
    int trouble = measured(device);
    if (trouble)
        return trouble;
    unsigned there = 0;
    for (int i = 0; i < device->users; i++)
        there += device->user[i].percent > 0 && device->user[i].at_us > since;
    if (!there)
        return NOT_FOUND;
    if (!into || *count < there) {
        *count = there;
        return INSUFFICIENT_SIZE;
    }
    *count = 0;
    for (int i = 0; i < device->users; i++) {
        user_t *user = &device->user[i];
        if (user->percent > 0 && user->at_us > since)
            into[(*count)++] = (use_t){user->pid, user->at_us, (unsigned)(user->percent + 0.5), 0, 0, 0};
    }
    return OK;
}

int nvmlDeviceGetProcessUtilization(device_t *device, use_t *into, unsigned *count, unsigned long long since) {
    LOCKED(use_by_process(device, into, count, since));
}

static int power(device_t *device, unsigned *milliwatts) {
    int trouble = device_trouble(device, 1);
    if (trouble)
        return trouble;
    if (device->part >= 0)
        return NOT_SUPPORTED;
    look(device);
    *milliwatts = 60000 + (unsigned)(device->percent * 6400);
    return OK;
}

int nvmlDeviceGetPowerUsage(device_t *device, unsigned *milliwatts) { LOCKED(power(device, milliwatts)); }

static int mig_mode(device_t *device, unsigned *current, unsigned *pending) {
    int trouble = device_trouble(device, 0);
    if (trouble)
        return trouble;
    if (device->part >= 0)
        return INVALID_ARGUMENT;
    *current = *pending = part_count(device->index) > 0;
    return OK;
}

int nvmlDeviceGetMigMode(device_t *device, unsigned *current, unsigned *pending) {
    LOCKED(mig_mode(device, current, pending));
}

static int most_parts(device_t *device, unsigned *count) {
    int trouble = device_trouble(device, 0);
    *count = part_count(device->index) ? 7 : 0;
    return trouble;
}

int nvmlDeviceGetMaxMigDeviceCount(device_t *device, unsigned *count) { LOCKED(most_parts(device, count)); }

static int part_by_index(device_t *device, unsigned index, device_t **part) {
    int trouble = device_trouble(device, 0);
    if (trouble)
        return trouble;
    if (index >= (unsigned)part_count(device->index))
        return NOT_FOUND;
    *part = &parts[device->index][index];
    (*part)->index = device->index;
    (*part)->part = index;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device_t *device, unsigned index, device_t **part) {
    LOCKED(part_by_index(device, index, part));
}
