// A library for LD_PRELOAD that makes chosen system calls on chosen files fail, for the fault tests.
//   INJECT = "call:path:skip:times:errno;..."  Fail `times` calls (-1: all) of `call` on files whose path contains
//            `path`, after letting `skip` of them through. errno 0 makes reads and writes short (one byte) instead.
//   INJECT_CLOCK = seconds  CLOCK_REALTIME jumps back and forth by so much on every call.
// Calls: read (pread, preadv), write (write, pwrite), fsync, rename, open, ftruncate.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct rule {
    char call[16], path[256];
    long skip, times;
    int error;
};

static struct rule rules[8];
static int rule_count = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void read_rules(void) {
    rule_count = 0;
    const char* text = getenv("INJECT");
    if (text == NULL) return;
    char copy[2048];
    snprintf(copy, sizeof copy, "%s", text);
    char* rest = copy;
    for (char* part; rule_count < 8 && (part = strsep(&rest, ";")) != NULL;) {
        struct rule* r = &rules[rule_count];
        if (sscanf(part, "%15[^:]:%255[^:]:%ld:%ld:%d", r->call, r->path, &r->skip, &r->times, &r->error) == 5)
            ++rule_count;
    }
}

// The rule that strikes now, or NULL.
static const struct rule* strike(const char* call, const char* path) {
    const struct rule* found = NULL;
    pthread_mutex_lock(&lock);
    if (rule_count < 0) read_rules();
    for (int i = 0; i < rule_count && found == NULL; ++i) {
        struct rule* r = &rules[i];
        if (strcmp(r->call, call) != 0 || strstr(path, r->path) == NULL) continue;
        if (r->skip > 0) {
            --r->skip;
        } else if (r->times != 0) {
            if (r->times > 0) --r->times;
            found = r;
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static const struct rule* strike_descriptor(const char* call, int descriptor) {
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return NULL;
    path[length] = '\0';
    return strike(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(rule)             \
    do {                       \
        errno = (rule)->error; \
        return -1;             \
    } while (0)

#define DEFINE_PREADV(name)                                                            \
    ssize_t name(int descriptor, const struct iovec* parts, int count, off_t offset) { \
        const struct rule* r = strike_descriptor("read", descriptor);                  \
        if (r == NULL) return REAL(name)(descriptor, parts, count, offset);            \
        if (r->error != 0) FAIL(r);                                                    \
        const struct iovec one = {parts[0].iov_base, parts[0].iov_len < 1 ? 0 : 1};    \
        return REAL(name)(descriptor, &one, 1, offset);                                \
    }
DEFINE_PREADV(preadv)
DEFINE_PREADV(preadv64)

#define DEFINE_PREADV2(name)                                                                      \
    ssize_t name(int descriptor, const struct iovec* parts, int count, off_t offset, int flags) { \
        const struct rule* r = strike_descriptor("read", descriptor);                             \
        if (r == NULL) return REAL(name)(descriptor, parts, count, offset, flags);                \
        if (r->error != 0) FAIL(r);                                                               \
        const struct iovec one = {parts[0].iov_base, parts[0].iov_len < 1 ? 0 : 1};               \
        return REAL(name)(descriptor, &one, 1, offset, flags);                                    \
    }
DEFINE_PREADV2(preadv2)
DEFINE_PREADV2(preadv64v2)

#define DEFINE_PREAD(name)                                                   \
    ssize_t name(int descriptor, void* buffer, size_t count, off_t offset) { \
        const struct rule* r = strike_descriptor("read", descriptor);        \
        if (r == NULL) return REAL(name)(descriptor, buffer, count, offset); \
        if (r->error != 0) FAIL(r);                                          \
        return REAL(name)(descriptor, buffer, count < 1 ? 0 : 1, offset);    \
    }
DEFINE_PREAD(pread)
DEFINE_PREAD(pread64)

ssize_t write(int descriptor, const void* buffer, size_t count) {
    const struct rule* r = strike_descriptor("write", descriptor);
    if (r == NULL) return REAL(write)(descriptor, buffer, count);
    if (r->error != 0) FAIL(r);
    return REAL(write)(descriptor, buffer, count < 1 ? 0 : 1);
}

int fsync(int descriptor) {
    const struct rule* r = strike_descriptor("fsync", descriptor);
    if (r != NULL) FAIL(r);
    return REAL(fsync)(descriptor);
}

int fdatasync(int descriptor) {
    const struct rule* r = strike_descriptor("fsync", descriptor);
    if (r != NULL) FAIL(r);
    return REAL(fdatasync)(descriptor);
}

int rename(const char* from, const char* to) {
    const struct rule* r = strike("rename", to);
    if (r != NULL) FAIL(r);
    return REAL(rename)(from, to);
}

#define DEFINE_OPEN(name)                              \
    int name(const char* path, int flags, ...) {       \
        va_list rest;                                  \
        va_start(rest, flags);                         \
        const mode_t mode = (mode_t)va_arg(rest, int); \
        va_end(rest);                                  \
        const struct rule* r = strike("open", path);   \
        if (r != NULL) FAIL(r);                        \
        return REAL(name)(path, flags, mode);          \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

int clock_gettime(clockid_t clock, struct timespec* now) {
    static long calls = 0;
    const int result = REAL(clock_gettime)(clock, now);
    const char* jump = getenv("INJECT_CLOCK");
    if (jump != NULL && clock == CLOCK_REALTIME) now->tv_sec += (calls++ % 2 == 0 ? 1 : -1) * atol(jump);
    return result;
}
