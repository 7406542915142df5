/* Opens streams, reads them to the end and checks that each one is whole.
 *
 *   streams PORT CONCURRENCY SECONDS SPREAD_US CHUNKS REQUEST_FILE COUNTER
 *
 * Each of CONCURRENCY connections to 127.0.0.1:PORT sends the bytes of REQUEST_FILE, reads the stream, and begins the
 * next one until SECONDS are over or a SIGINT comes; then those under way are read to their end. The first streams
 * begin SPREAD_US apart, so that paced chunks do not all arrive in one moment. A stream counts as complete only if all
 * CHUNKS content chunks came once and in order, then "data: [DONE]", then the proper end of the HTTP message;
 * everything else is a failure, counted by its reason. COUNTER is an existing file of one 64-bit word, shared memory:
 * the content chunks read so far. One JSON object on standard output tells what was seen, with
 * times in microseconds, of every connection's streams but the first:
 *   first_byte    from sending the request to the first byte of the body
 *   delay         from the responder's sending of a content chunk (its stamp) to our reading of it
 *   first_delay   the same of the first chunk alone
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { IN_SIZE = 1 << 16, EVENT_SIZE = 1 << 14, SILENCE_MS = 15000 };
enum reason { REFUSED, UNREACHABLE, CUT, OUT_OF_ORDER, NO_END_MARKER, MISFRAMED, SILENT, REASONS };
static const char *const REASON_NAMES[] = {
    "refused", "unreachable", "cut", "out_of_order", "no_end_marker", "misframed", "silent"};

/* Where the parser of the chunked coding is. */
enum place { HEAD, SIZE, DATA, DATA_END, TRAILER, UNTIL_CLOSE };

struct stream {
    int fd, done, active, close_after, rounds, reused;
    enum place place;
    long next;                  /* number of the content chunk that must come now */
    size_t left, line_len, in_len;
    uint64_t sent_at, first_at, heard_at, start_at;
    char line[EVENT_SIZE];      /* of the body: a line of the event stream */
    char in[IN_SIZE];
};

struct series { uint32_t *at; size_t len, size; };

static struct series first_bytes, delays, first_delays;
static uint64_t *chunks;
static long complete, usage_events, failures[REASONS], wanted;
static struct stream *streams;
static int epoll_fd, port, width, stopping, live;
static volatile sig_atomic_t interrupted;
static char *request;
static size_t request_len;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The first stream of a connection is not timed: it pays for the connections, ours and the upstream's. */
static void note(const struct stream *from, struct series *s, uint64_t ns) {
    if (from->rounds < 2) return;
    if (s->len == s->size) s->at = realloc(s->at, (s->size = s->size ? 2 * s->size : 4096) * sizeof *s->at);
    s->at[s->len++] = ns / 100 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 100);
}

static int smaller(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_series(const char *name, struct series *s) {
    qsort(s->at, s->len, sizeof *s->at, smaller);
    printf("\"%s_us\": {\"count\": %zu", name, s->len);
    const int percents[] = {50, 90, 99};
    for (int i = 0; i < 3; i++) {
        size_t at = s->len * (size_t)percents[i] / 100;
        printf(", \"p%d\": %.1f", percents[i], s->len ? s->at[at < s->len ? at : s->len - 1] / 10.0 : 0.0);
    }
    printf("}");
}

static void begin(struct stream *s);
static void on_closed(struct stream *s);

static void hang_up(struct stream *s) {
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

static void ended(struct stream *s) {
    s->active = 0;
    live--;
    if (s->close_after) hang_up(s);
    if (!stopping) begin(s);
}

static void fail(struct stream *s, enum reason reason) {
    failures[reason]++;
    hang_up(s);
    s->active = 0;
    live--;
    s->start_at = now_ns() + 10000000;   /* not at once: a server that refuses all is not hammered */
}

static void finish(struct stream *s) {
    if (!s->done) { fail(s, NO_END_MARKER); return; }
    if (s->next != wanted) { fail(s, OUT_OF_ORDER); return; }
    complete++;
    ended(s);
}

/* One line of the event stream. 0: the stream has failed. */
static int on_line(struct stream *s, uint64_t now) {
    if (!s->line_len) return 1;
    s->line[s->line_len] = 0;
    if (!strcmp(s->line, "data: [DONE]") || !strcmp(s->line, "data:[DONE]")) { s->done = 1; return 1; }
    if (strstr(s->line, "\"usage\":{") || strstr(s->line, "\"usage\": {")) usage_events++;
    const char *content = strstr(s->line, "\"content\":");
    if (!content) return 1;
    content += 10;
    if (*content == ' ') content++;
    if (content[0] != '"' || content[1] < '0' || content[1] > '9') return 1;
    char *rest;
    long number = strtol(content + 1, &rest, 10);
    if (s->done || number != s->next) { fail(s, OUT_OF_ORDER); return 0; }
    s->next++;
    ++*chunks;
    uint64_t stamp = strtoull(rest, NULL, 16), delay = now > stamp ? now - stamp : 0;
    note(s, &delays, delay);
    if (number == 0) note(s, &first_delays, delay);
    return 1;
}

/* Bytes of the body, the coding taken off. 0: the stream has failed. */
static int on_body(struct stream *s, const char *at, size_t len, uint64_t now) {
    if (!s->first_at) {
        s->first_at = now;
        note(s, &first_bytes, now - s->sent_at);
    }
    while (len) {
        const char *newline = memchr(at, '\n', len);
        size_t n = newline ? (size_t)(newline - at) : len;
        if (s->line_len + n + 1 > sizeof s->line) { fail(s, MISFRAMED); return 0; }
        memcpy(s->line + s->line_len, at, n);
        s->line_len += n;
        if (!newline) return 1;
        if (s->line_len && s->line[s->line_len - 1] == '\r') s->line_len--;
        if (!on_line(s, now)) return 0;
        s->line_len = 0;
        at += n + 1;
        len -= n + 1;
    }
    return 1;
}

/* The head of the answer. 0: the stream has failed. */
static int on_head(struct stream *s, size_t len) {
    int status = len > 12 ? atoi(s->in + 9) : 0;
    s->place = UNTIL_CLOSE;
    s->close_after = 0;
    for (const char *line = s->in, *end = s->in + len; (line = memchr(line, '\n', (size_t)(end - line))); ) {
        if (++line >= end) break;
        if (!strncasecmp(line, "transfer-encoding: chunked", 26)) s->place = SIZE;
        if (!strncasecmp(line, "connection: close", 17)) s->close_after = 1;
    }
    if (status == 200) return 1;
    fail(s, REFUSED);
    return 0;
}

/* Takes what it can from the buffer. Bytes taken; 0: needs more; -1: the stream has ended or failed. */
static long advance(struct stream *s, const char *at, size_t len, uint64_t now) {
    const char *newline;
    size_t n;
    switch (s->place) {
    case HEAD:
        if (!(newline = memmem(at, len, "\r\n\r\n", 4))) return 0;
        n = (size_t)(newline - at) + 4;
        return on_head(s, n) ? (long)n : -1;
    case SIZE:
        if (!(newline = memchr(at, '\n', len))) return 0;
        s->left = strtoul(at, NULL, 16);
        s->place = s->left ? DATA : TRAILER;
        return newline - at + 1;
    case DATA:
    case UNTIL_CLOSE:
        n = s->place == DATA && s->left < len ? s->left : len;
        if (!n) return 0;
        if (!on_body(s, at, n, now)) return -1;
        if (s->place == DATA && !(s->left -= n)) s->place = DATA_END;
        return (long)n;
    case DATA_END:
        if (len < 2) return 0;
        if (at[0] != '\r' || at[1] != '\n') { fail(s, MISFRAMED); return -1; }
        s->place = SIZE;
        return 2;
    case TRAILER:
        if (!(newline = memchr(at, '\n', len))) return 0;
        if (newline - at > 1) return newline - at + 1;
        if (newline + 1 != at + len) fail(s, MISFRAMED); else { s->in_len = 0; finish(s); }
        return -1;
    }
    return -1;
}

static void on_closed(struct stream *s) {
    /* A kept-alive connection that was closed before our request got there: that says nothing about the stream. */
    if (s->reused && s->place == HEAD && !s->in_len) {
        hang_up(s);
        s->active = 0;
        live--;
        s->rounds--;
        begin(s);
        return;
    }
    if (s->place == UNTIL_CLOSE) { s->close_after = 1; finish(s); } else fail(s, CUT);
}

static void on_readable(struct stream *s) {
    ssize_t n = recv(s->fd, s->in + s->in_len, IN_SIZE - s->in_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (!s->active) { hang_up(s); return; }
    if (n <= 0) { on_closed(s); return; }
    uint64_t now = s->heard_at = now_ns();
    s->in_len += (size_t)n;
    size_t used = 0;
    for (long taken; used < s->in_len; used += (size_t)taken) {
        taken = advance(s, s->in + used, s->in_len - used, now);
        if (taken < 0) return;
        if (!taken) break;
    }
    s->in_len -= used;
    memmove(s->in, s->in + used, s->in_len);
}

static int reach(struct stream *s) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&to, sizeof to)) return 0;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
    return !epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &event);
}

static void begin(struct stream *s) {
    s->place = HEAD;
    s->done = 0;
    s->next = 0;
    s->line_len = s->in_len = 0;
    s->first_at = 0;
    s->active = 1;
    s->rounds++;
    live++;
    s->reused = s->fd >= 0;
    if (!s->reused && !reach(s)) { fail(s, UNREACHABLE); return; }
    s->sent_at = s->heard_at = now_ns();
    if (send(s->fd, request, request_len, MSG_NOSIGNAL) == (ssize_t)request_len) return;
    if (s->reused) on_closed(s); else fail(s, UNREACHABLE);
}

static void look_after(uint64_t now) {
    for (int i = 0; i < width; i++) {
        struct stream *s = &streams[i];
        if (!s->active && !stopping && s->start_at <= now) begin(s);
        else if (s->active && now - s->heard_at > (uint64_t)SILENCE_MS * 1000000u) fail(s, SILENT);
    }
}

static void read_request(const char *path) {
    FILE *file = fopen(path, "rb");
    request = malloc(1 << 20);
    if (!file || !(request_len = fread(request, 1, 1 << 20, file))) { perror(path); exit(1); }
    fclose(file);
}

static uint64_t *share(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) { perror(path); exit(1); }
    return at;
}

static void run(double seconds) {
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    for (struct epoll_event events[256]; !stopping || live;) {
        int n = epoll_wait(epoll_fd, events, 256, 1);
        for (int i = 0; i < n; i++) {
            struct stream *s = events[i].data.ptr;
            if (s->fd >= 0) on_readable(s);
        }
        uint64_t now = now_ns();
        stopping = interrupted || now >= end;
        look_after(now);
    }
}

static void on_interrupt(int number) { interrupted = number; }

int main(int argc, char **argv) {
    if (argc != 8) { fprintf(stderr, "usage: streams PORT CONCURRENCY SECONDS SPREAD_US CHUNKS REQUEST_FILE COUNTER\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, on_interrupt);
    port = atoi(argv[1]);
    width = atoi(argv[2]);
    wanted = atol(argv[5]);
    read_request(argv[6]);
    chunks = share(argv[7]);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    streams = calloc((size_t)width, sizeof *streams);
    uint64_t from = now_ns();
    for (int i = 0; i < width; i++) {
        streams[i].fd = -1;
        streams[i].start_at = from + (uint64_t)i * strtoull(argv[4], NULL, 10) * 1000u;
    }
    run(atof(argv[3]));
    long failed = 0;
    printf("{\"complete\": %ld, \"chunks\": %llu, \"usage_events\": %ld, \"reasons\": {", complete, (unsigned long long)*chunks, usage_events);
    for (int i = 0, seen = 0; i < REASONS; i++) {
        failed += failures[i];
        if (failures[i]) printf("%s\"%s\": %ld", seen++ ? ", " : "", REASON_NAMES[i], failures[i]);
    }
    printf("}, \"incomplete\": %ld, ", failed);
    print_series("first_byte", &first_bytes);
    printf(", ");
    print_series("delay", &delays);
    printf(", ");
    print_series("first_delay", &first_delays);
    printf("}\n");
    return 0;
}
