# cython: language_level=3
"""A thread that is no Python thread: it writes a group of buffers, syncs, and says so through an eventfd.

It never needs the GIL, so it neither waits for the event loop to let go of it nor makes the loop wait. One job at a
time. Linux only: elsewhere this does not compile, and the twin (flusher.Flusher, a Python thread) does the work.

Where the bytes fall into blocks that the file has already, as in a WAL segment, they go past the page cache (O_DIRECT):
a page that is filled only to be written once costs more than all else in a group, and a sync need not look for it.
What stands before a group in its first block is written again as it was, as the page cache would do it too; behind the
group the block is filled with zeros. So nobody else may write to the file beyond the end of a group, in that block.

A large group goes out in pieces that several threads copy and write at the same time: a disk that is given one write
after the other does half of what it can. In which order the pieces reach it does not matter before the sync.
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <limits.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/eventfd.h>
    #include <sys/stat.h>
    #include <sys/uio.h>
    #include <unistd.h>

    #define STREAMLAKE_IOV_MAX 1024
    #define STREAMLAKE_BLOCK 4096
    #define STREAMLAKE_STAGE (1 << 20)
    #define STREAMLAKE_PIECE_MIN (256 << 10)
    #define STREAMLAKE_WRITERS 3  /* threads beside the one that has the job */

    /* The file that was written last, past the page cache. `stage` starts with its last block as it was written, if
       that is not full: the bytes before `end`. */
    typedef struct {
        int fd;           /* -1: none, or not possible for this file */
        dev_t device;
        ino_t inode;
        int64_t end;
        int proven;       /* a group was written so */
        char* stage;      /* aligned to blocks */
    } streamlake_direct;

    typedef struct {
        int64_t part;
        size_t taken;     /* bytes of this part that belong to the pieces before */
    } streamlake_cursor;

    /* A group cut into pieces of whole blocks. From `next` to `error` under the mutex. */
    typedef struct {
        pthread_mutex_t mutex;
        pthread_cond_t work;
        pthread_cond_t done;
        pthread_t threads[STREAMLAKE_WRITERS];
        int started;      /* threads */
        int stop;
        streamlake_cursor* cursors;  /* where each piece begins */
        int64_t room;     /* cursors that fit */
        int64_t bytes;    /* of a piece, but for the last */
        int64_t offset;   /* of the first piece in the file */
        int64_t total;    /* bytes of all, with what stands before the group in its first block */
        int64_t pieces;
        int64_t next;     /* the first that nobody has taken */
        int64_t finished;
        int error;
        char tail[STREAMLAKE_BLOCK];  /* the last block, if it is not full */
    } streamlake_pieces;

    typedef struct {
        pthread_t thread;
        int started;
        int request_fd;   /* the thread waits here */
        int done_fd;      /* the event loop waits here */
        int stop;
        int fd;           /* of the job; -1: none */
        int error;        /* its errno */
        struct iovec* parts;
        int64_t count;
        int64_t offset;
        int64_t written;
        int64_t direct_writes;
        streamlake_direct direct;
        streamlake_pieces pieces;
    } streamlake_flush;

    /* Everything, or errno. A short write goes on: what is left then fails with the true reason. */
    static int streamlake_write(streamlake_flush* job) {
        int64_t at = 0;
        while (at < job->count) {
            int64_t left = job->count - at;
            ssize_t n;
            if (job->parts[at].iov_len == 0) { at++; continue; }
            n = pwritev(job->fd, job->parts + at, left < STREAMLAKE_IOV_MAX ? (int)left : STREAMLAKE_IOV_MAX,
                        (off_t)(job->offset + job->written));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return errno;
            if (n == 0) return EIO;
            job->written += n;
            while (n > 0) {
                size_t part = job->parts[at].iov_len;
                if ((size_t)n < part) {
                    job->parts[at].iov_base = (char*)job->parts[at].iov_base + n;
                    job->parts[at].iov_len = part - (size_t)n;
                    break;
                }
                n -= (ssize_t)part;
                at++;
            }
        }
        return 0;
    }

    /* Make `direct` that of the job's file. Nonzero if all blocks of the job are there and can be written so. */
    static int streamlake_direct_open(streamlake_flush* job, int64_t size) {
        streamlake_direct* direct = &job->direct;
        struct stat file;
        char path[64];
        int64_t end = (job->offset + size + STREAMLAKE_BLOCK - 1) / STREAMLAKE_BLOCK * STREAMLAKE_BLOCK;
        if (size == 0 || fstat(job->fd, &file) != 0 || !S_ISREG(file.st_mode) || end > (int64_t)file.st_size) return 0;
        if (direct->end >= 0 && direct->device == file.st_dev && direct->inode == file.st_ino) return direct->fd >= 0;
        if (direct->fd >= 0) close(direct->fd);
        if (direct->stage == NULL && posix_memalign((void**)&direct->stage, STREAMLAKE_BLOCK, STREAMLAKE_STAGE) != 0) {
            direct->stage = NULL;
            direct->fd = -1;
            return 0;
        }
        snprintf(path, sizeof path, "/proc/self/fd/%d", job->fd);
        direct->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);  /* refused by file systems that cannot */
        direct->device = file.st_dev;
        direct->inode = file.st_ino;
        direct->end = direct->proven = 0;
        return direct->fd >= 0;
    }

    /* What the first block of the job holds before it: kept from the job before, or read. */
    static int streamlake_direct_head(streamlake_flush* job) {
        streamlake_direct* direct = &job->direct;
        int64_t block = job->offset / STREAMLAKE_BLOCK * STREAMLAKE_BLOCK;
        ssize_t n;
        if (block == job->offset || direct->end == job->offset) return 0;
        do n = pread(direct->fd, direct->stage, STREAMLAKE_BLOCK, (off_t)block); while (n < 0 && errno == EINTR);
        if (n < 0) return errno;
        return n == STREAMLAKE_BLOCK ? 0 : EIO;
    }

    static int streamlake_direct_put(int fd, const char* data, int64_t size, int64_t offset) {
        int64_t done = 0;
        while (done < size) {
            ssize_t n = pwrite(fd, data + done, (size_t)(size - done), (off_t)(offset + done));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return errno;
            if (n == 0) return EIO;
            done += n;
        }
        return 0;
    }

    /* Cut the job into pieces. Nonzero if there is no memory for it. */
    static int streamlake_cut(streamlake_flush* job, int64_t size) {
        streamlake_pieces* all = &job->pieces;
        int64_t head = job->offset % STREAMLAKE_BLOCK, total = head + size, part = 0, left = 0, piece;
        int64_t bytes = total / (STREAMLAKE_WRITERS + 1) / STREAMLAKE_BLOCK * STREAMLAKE_BLOCK + STREAMLAKE_BLOCK;
        size_t taken = 0;
        if (bytes < STREAMLAKE_PIECE_MIN) bytes = STREAMLAKE_PIECE_MIN;
        if (bytes > STREAMLAKE_STAGE) bytes = STREAMLAKE_STAGE;
        int64_t pieces = (total + bytes - 1) / bytes;
        if (pieces > all->room) {
            streamlake_cursor* more = realloc(all->cursors, (size_t)pieces * sizeof *more);
            if (more == NULL) return 1;
            all->cursors = more;
            all->room = pieces;
        }
        for (piece = 0; piece < pieces; piece++) {
            all->cursors[piece].part = part;
            all->cursors[piece].taken = taken;
            for (left = piece == 0 ? bytes - head : bytes; left > 0 && part < job->count;) {
                size_t there = job->parts[part].iov_len - taken;
                if ((int64_t)there > left) { taken += (size_t)left; break; }
                left -= (int64_t)there;
                part++;
                taken = 0;
            }
        }
        all->bytes = bytes;
        all->offset = job->offset - head;
        all->total = total;
        pthread_mutex_lock(&all->mutex);
        all->pieces = pieces;
        all->next = pieces;  /* nobody begins yet */
        all->finished = 0;
        all->error = 0;
        pthread_mutex_unlock(&all->mutex);
        return 0;
    }

    /* Copy a piece to `stage` and write it. That of the first piece starts with what stands before the group. */
    static int streamlake_write_piece(streamlake_flush* job, int64_t piece, char* stage) {
        streamlake_pieces* all = &job->pieces;
        int64_t begin = piece * all->bytes, filled = piece == 0 ? job->offset - all->offset : 0;
        int64_t size = all->total - begin < all->bytes ? all->total - begin : all->bytes;
        int64_t blocks = (size + STREAMLAKE_BLOCK - 1) / STREAMLAKE_BLOCK * STREAMLAKE_BLOCK;
        streamlake_cursor at = all->cursors[piece];
        while (filled < size) {
            size_t there = job->parts[at.part].iov_len - at.taken, wanted = (size_t)(size - filled);
            size_t n = there < wanted ? there : wanted;
            memcpy(stage + filled, (char*)job->parts[at.part].iov_base + at.taken, n);
            filled += (int64_t)n;
            at.taken += n;
            if (at.taken == job->parts[at.part].iov_len) { at.part++; at.taken = 0; }
        }
        memset(stage + size, 0, (size_t)(blocks - size));
        if (size < blocks) memcpy(all->tail, stage + blocks - STREAMLAKE_BLOCK, STREAMLAKE_BLOCK);  /* the last piece */
        return streamlake_direct_put(job->direct.fd, stage, blocks, all->offset + begin);
    }

    /* Take pieces until there are none; with the mutex held. */
    static void streamlake_take_pieces(streamlake_flush* job, char* stage) {
        streamlake_pieces* all = &job->pieces;
        while (all->next < all->pieces) {
            int64_t piece = all->next++;
            int error = all->error;  /* after one, the others are not worth a write: the whole group has failed */
            pthread_mutex_unlock(&all->mutex);
            if (error == 0) error = streamlake_write_piece(job, piece, stage);
            pthread_mutex_lock(&all->mutex);
            if (error != 0 && all->error == 0) all->error = error;
            if (++all->finished == all->pieces) pthread_cond_signal(&all->done);
        }
    }

    static void* streamlake_writer_run(void* argument) {
        streamlake_flush* job = argument;
        streamlake_pieces* all = &job->pieces;
        char* stage;
        sigset_t signals;
        sigfillset(&signals);
        pthread_sigmask(SIG_BLOCK, &signals, NULL);
        if (posix_memalign((void**)&stage, STREAMLAKE_BLOCK, STREAMLAKE_STAGE) != 0) return NULL;
        pthread_mutex_lock(&all->mutex);
        while (!all->stop) {
            streamlake_take_pieces(job, stage);
            if (!all->stop) pthread_cond_wait(&all->work, &all->mutex);
        }
        pthread_mutex_unlock(&all->mutex);
        free(stage);
        return NULL;
    }

    /* All pieces but the first are there to be taken. Threads are started when a group first needs them; those that
       cannot be had are done without. */
    static void streamlake_call_writers(streamlake_flush* job) {
        streamlake_pieces* all = &job->pieces;
        while (all->started < STREAMLAKE_WRITERS &&
               pthread_create(&all->threads[all->started], NULL, streamlake_writer_run, job) == 0) all->started++;
        pthread_mutex_lock(&all->mutex);
        all->next = 1;
        pthread_cond_broadcast(&all->work);
        pthread_mutex_unlock(&all->mutex);
    }

    /* As streamlake_write, through the stages. EINVAL before anything was written: this file cannot be written so. */
    static int streamlake_direct_write(streamlake_flush* job, int64_t size) {
        streamlake_direct* direct = &job->direct;
        streamlake_pieces* all = &job->pieces;
        int error = streamlake_direct_head(job);
        if (error) return error;
        if (streamlake_cut(job, size)) return EINVAL;
        /* The first piece belongs to this thread, whose stage has its head. It goes first, if it is not known yet that
           the file can be written so. */
        if (!direct->proven && (error = streamlake_write_piece(job, 0, direct->stage))) return error;
        job->written = 1;
        if (all->pieces > 1) streamlake_call_writers(job);
        if (direct->proven) error = streamlake_write_piece(job, 0, direct->stage);
        pthread_mutex_lock(&all->mutex);
        if (error != 0 && all->error == 0) all->error = error;
        all->finished++;
        streamlake_take_pieces(job, direct->stage);
        while (all->finished < all->pieces) pthread_cond_wait(&all->done, &all->mutex);
        error = all->error;
        pthread_mutex_unlock(&all->mutex);
        if (error) return error;
        direct->proven = 1;
        job->written = size;
        direct->end = job->offset + size;
        memcpy(direct->stage, all->tail, STREAMLAKE_BLOCK);
        return 0;
    }

    static int streamlake_put(streamlake_flush* job) {
        int64_t size = 0;
        for (int64_t i = 0; i < job->count; i++) size += (int64_t)job->parts[i].iov_len;
        if (streamlake_direct_open(job, size)) {
            int error = streamlake_direct_write(job, size);
            if (error == 0) { job->direct_writes++; return 0; }
            job->direct.end = 0;  /* what the stage holds is no block of the file */
            if (error != EINVAL || job->written) return error;
            close(job->direct.fd);
            job->direct.fd = -1;
        }
        return streamlake_write(job);
    }

    static void* streamlake_flush_run(void* argument) {
        streamlake_flush* job = argument;
        uint64_t number;
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, NULL);  /* signals are the main thread's */
        for (;;) {
            ssize_t n = read(job->request_fd, &number, sizeof number);
            if (n < 0 && errno == EINTR) continue;
            if (n != sizeof number || job->stop) return NULL;
            job->error = streamlake_put(job);
            /* A failed sync leaves the file's durable content unknown: it is never tried again (fsyncgate). */
            if (job->error == 0 && fdatasync(job->fd) != 0) job->error = errno;
            close(job->fd);
            number = 1;
            while (write(job->done_fd, &number, sizeof number) < 0 && errno == EINTR) {}
        }
    }

    static int streamlake_flush_start(streamlake_flush* job) {
        int error;
        job->fd = job->direct.fd = -1;
        job->direct.end = -1;
        pthread_mutex_init(&job->pieces.mutex, NULL);
        pthread_cond_init(&job->pieces.work, NULL);
        pthread_cond_init(&job->pieces.done, NULL);
        job->request_fd = eventfd(0, EFD_CLOEXEC);
        job->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (job->request_fd < 0 || job->done_fd < 0) return errno;
        error = pthread_create(&job->thread, NULL, streamlake_flush_run, job);
        job->started = error == 0;
        return error;
    }

    static int streamlake_flush_wake(streamlake_flush* job) {
        uint64_t one = 1;
        ssize_t n;
        do n = write(job->request_fd, &one, sizeof one); while (n < 0 && errno == EINTR);
        return n == sizeof one ? 0 : errno;
    }

    static int streamlake_flush_is_done(streamlake_flush* job) {
        uint64_t number;
        return read(job->done_fd, &number, sizeof number) == sizeof number;
    }

    static void streamlake_flush_stop(streamlake_flush* job) {
        if (job->started) {
            job->stop = 1;
            streamlake_flush_wake(job);
            pthread_join(job->thread, NULL);
            job->started = 0;
            pthread_mutex_lock(&job->pieces.mutex);
            job->pieces.stop = 1;
            pthread_cond_broadcast(&job->pieces.work);
            pthread_mutex_unlock(&job->pieces.mutex);
            while (job->pieces.started > 0) pthread_join(job->pieces.threads[--job->pieces.started], NULL);
        }
        if (job->request_fd >= 0) close(job->request_fd);
        if (job->done_fd >= 0) close(job->done_fd);
        if (job->direct.fd >= 0) close(job->direct.fd);
        free(job->direct.stage);
        free(job->pieces.cursors);
        job->direct.stage = NULL;
        job->pieces.cursors = NULL;
        job->request_fd = job->done_fd = job->direct.fd = -1;
    }

    static int streamlake_dup(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }
    """
    struct iovec:
        void* iov_base
        size_t iov_len
    ctypedef struct streamlake_flush:
        int started
        int request_fd
        int done_fd
        int fd
        int error
        iovec* parts
        int64_t count
        int64_t offset
        int64_t written
        int64_t direct_writes
    int streamlake_flush_start(streamlake_flush*)
    int streamlake_flush_wake(streamlake_flush*)
    int streamlake_flush_is_done(streamlake_flush*)
    void streamlake_flush_stop(streamlake_flush*) nogil
    int streamlake_dup(int)
    int errno


cdef class FlushThread:
    """`submit`; when `done_fd` is readable, `result`; then the next. `stop` at the end. For one Python thread."""

    cdef streamlake_flush _job
    cdef Py_buffer* _views
    cdef int64_t _held

    def __cinit__(self):
        self._job.request_fd = self._job.done_fd = -1
        error = streamlake_flush_start(&self._job)
        if error:
            raise OSError(error, os.strerror(error))

    def __dealloc__(self):
        with nogil:
            streamlake_flush_stop(&self._job)
        self._release()

    @property
    def done_fd(self):
        return self._job.done_fd

    @property
    def direct_writes(self):
        """Jobs that went past the page cache."""
        return self._job.direct_writes

    def submit(self, int fd, buffers, int64_t offset):
        """Write `buffers` one after the other at `offset` of file `fd`, then fdatasync. They must not change until it
        is done; the file may be closed before."""
        cdef int64_t count = len(buffers)
        cdef int error
        if self._views != NULL or not self._job.started:
            raise RuntimeError("the flush thread has a job, or was stopped")
        self._views = <Py_buffer*>calloc(count + 1, sizeof(Py_buffer))
        self._job.parts = <iovec*>calloc(count + 1, sizeof(iovec))
        try:
            if self._views == NULL or self._job.parts == NULL:
                raise MemoryError
            for buffer in buffers:
                PyObject_GetBuffer(buffer, &self._views[self._held], PyBUF_SIMPLE)
                self._job.parts[self._held].iov_base = self._views[self._held].buf
                self._job.parts[self._held].iov_len = <size_t>self._views[self._held].len
                self._held += 1
            self._job.count = self._held
            self._job.offset = offset
            self._job.written = 0
            # A duplicate: the number of a file that is closed meanwhile may be given to another file.
            self._job.fd = streamlake_dup(fd)
            if self._job.fd < 0:
                error = errno
                raise OSError(error, os.strerror(error))
            error = streamlake_flush_wake(&self._job)
            if error:
                os.close(self._job.fd)
                raise OSError(error, os.strerror(error))
        except BaseException:
            self._release()
            raise

    def result(self):
        """Bytes written and durable of the job that is done, or None if it is not. OSError."""
        if self._views == NULL or not streamlake_flush_is_done(&self._job):
            return None
        self._release()
        if self._job.error:
            raise OSError(self._job.error, os.strerror(self._job.error))
        return self._job.written

    def stop(self):
        """Wait for the job to end, if there is one, and end the thread. The answer of such a job is lost."""
        with nogil:
            streamlake_flush_stop(&self._job)
        self._release()

    cdef void _release(self) noexcept:
        cdef int64_t i
        if self._views != NULL:
            for i in range(self._held):
                PyBuffer_Release(&self._views[i])
        free(self._views)
        free(self._job.parts)
        self._views = NULL
        self._job.parts = NULL
        self._held = 0
