/* Moves the wall clock of one program while it runs, or holds its monotonic clock back: see skew.py.

   SKEW_FILE=file LD_PRELOAD=skew.so program. The file holds three int64: by how many milliseconds the wall clock is ahead
   (or behind), which may be changed at any time; how many wrong times of it the program has been told; for how many
   milliseconds the machine has slept, in which CLOCK_MONOTONIC stood still and CLOCK_BOOTTIME did not, to be changed only
   while the program is stopped. No function that allocates is called from here: programs ask for the time while they set up their
   allocator. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shared;

__attribute__((constructor)) static void share(void) {
  const char *path = getenv("SKEW_FILE");
  int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *page = mmap(0, 24, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (page != MAP_FAILED) shared = page;
}

static void shift(struct timespec *moment, int64_t milliseconds) {
  moment->tv_sec += milliseconds / 1000;
  moment->tv_nsec += milliseconds % 1000 * 1000000;
  if (moment->tv_nsec >= 1000000000) moment->tv_sec++, moment->tv_nsec -= 1000000000;
  if (moment->tv_nsec < 0) moment->tv_sec--, moment->tv_nsec += 1000000000;
}

int clock_gettime(clockid_t clock, struct timespec *moment) {
  int failed = syscall(SYS_clock_gettime, clock, moment);
  int64_t offset = shared ? shared[0] : 0;
  if (!failed && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    shift(moment, offset);
    __atomic_add_fetch(&shared[1], 1, __ATOMIC_RELAXED);
  }
  if (!failed && shared && (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_MONOTONIC_COARSE))
    shift(moment, -shared[2]);
  return failed;
}

int gettimeofday(struct timeval *moment, void *zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  moment->tv_sec = now.tv_sec;
  moment->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *moment) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (moment) *moment = now.tv_sec;
  return now.tv_sec;
}

/* The kernel knows nothing of our offset: a wait until a moment of a moved clock has to be told in its own time. Moments
   of clocks that count from the boot are far below those of the wall clock; nobody waits by CLOCK_BOOTTIME. */
#define SINCE_2001 1000000000

static struct timespec unmoved(const struct timespec *until) {
  struct timespec moment = *until;
  if (shared) shift(&moment, until->tv_sec > SINCE_2001 ? -shared[0] : shared[2]);
  return moment;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
  static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (!wait) wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  struct timespec moment = unmoved(until);
  return wait(condition, mutex, &moment);
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *until) {
  static int (*wait)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
  if (!wait) wait = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
  struct timespec moment = unmoved(until);
  return wait(condition, mutex, clock, &moment);
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until) {
  static int (*wait)(sem_t *, clockid_t, const struct timespec *);
  if (!wait) wait = dlsym(RTLD_NEXT, "sem_clockwait");
  struct timespec moment = unmoved(until);
  return wait(semaphore, clock, &moment);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
  static int (*wait)(clockid_t, int, const struct timespec *, struct timespec *);
  if (!wait) wait = dlsym(RTLD_NEXT, "clock_nanosleep");
  struct timespec moment = flags & TIMER_ABSTIME ? unmoved(until) : *until;
  return wait(clock, flags, &moment, left);
}
