/* The provider that a benchmark talks to: one thread, epoll, canned answers, nothing allocated a request.
 *
 *   responder PORT COUNTERS
 *
 * Prints "ready PORT" once it listens on 127.0.0.1 (PORT 0: any free one). The model's name in the body says what
 * comes back, because that is what every proxy passes on:
 *   bench-plain        a chat completion of about 1.2 KB with its usage
 *   bench-paced-N      with "stream": true, N content chunks, one every 5 ms
 *   bench-burst-N      the same without a pause; streams take turns, each chunk is a send() of its own
 *   bench-cut-N        N chunks, then the connection is closed: no end marker
 *   bench-skip-N       a whole stream in which the chunk before the last is missing
 * No two chunks are alike: each carries its number, the CLOCK_MONOTONIC time of its sending (ns, hex) and a word of
 * varying length. COUNTERS is an existing file of six 64-bit words (struct counters), shared memory that a
 * harness reads without disturbing the run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { IN_SIZE = 1 << 18, OUT_SIZE = 1 << 13, EVENT_SIZE = 2048, GROUP = 4, MAX_CONNS = 1 << 14, PACE_NS = 5000000 };
enum kind { PLAIN, PACED, BURST, CUT, SKIP };

struct counters {
    uint64_t requests, chunks, streams_started, streams_finished, bytes_in, connections;
};

struct conn {
    int fd, in_list, closing, wants_usage, blocked;
    enum kind kind;
    long index, count;          /* next chunk, and how many there are */
    uint64_t due;               /* when the next chunk of a paced stream goes out, ns */
    size_t in_len, scanned, head_len, body_len;
    int chunked, streaming;
    const char *out;            /* what send() has not taken yet */
    size_t out_len;
    struct conn *next;
    char chunk[OUT_SIZE];
    char in[IN_SIZE];
};

struct list { struct conn *head, *tail; };

static struct counters *counters;
static struct conn *conns[MAX_CONNS];
static struct list paced, bursts;
static int epoll_fd, timer_fd, group = GROUP;
static char plain_reply[4096], list_reply[512];
static size_t plain_len, list_len;

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    "x-request-id: req_bench\r\nopenai-processing-ms: 12\r\nopenai-version: 2020-10-01\r\n"
    "Transfer-Encoding: chunked\r\n\r\n";
static const char EVENT_START[] =
    "data: {\"id\":\"chatcmpl-bench0000000000000000000000\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,"
    "\"model\":\"bench\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench\",\"choices\":[{\"index\":0,"
    "\"delta\":{\"content\":\"";
static const char EVENT_END[] = "\"},\"logprobs\":null,\"finish_reason\":null}]";
static const char FINISH[] =
    "data: {\"id\":\"chatcmpl-bench0000000000000000000000\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,"
    "\"model\":\"bench\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench\",\"choices\":[{\"index\":0,"
    "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]";
static const char USAGE_EVENT[] =
    "data: {\"id\":\"chatcmpl-bench0000000000000000000000\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,"
    "\"model\":\"bench\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench\",\"choices\":[],"
    "\"usage\":{\"prompt_tokens\":300,\"completion_tokens\":%ld,\"total_tokens\":%ld}}\n\n";
static const char DONE[] = "data: [DONE]\n\n";

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void build_replies(void) {
    char body[2048];
    const char *text =
        "A gate that lets traffic through by the height of the water: when it is low everyone passes, and when it is "
        "high the gate decides who goes first, who waits and who is sent away. It counts what passed, writes it down "
        "and tells each boat what its passage cost; and nobody who waits is forgotten, however long the queue grows. ";
    int n = snprintf(body, sizeof body,
        "{\"id\":\"chatcmpl-bench0000000000000000000000\",\"object\":\"chat.completion\",\"created\":1764000000,"
        "\"model\":\"bench-plain\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s%s\","
        "\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{"
        "\"prompt_tokens\":300,\"completion_tokens\":120,\"total_tokens\":420,\"prompt_tokens_details\":{"
        "\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,"
        "\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}},"
        "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench\"}", text, text);
    plain_len = (size_t)snprintf(plain_reply, sizeof plain_reply,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nx-request-id: req_bench\r\n"
        "openai-processing-ms: 12\r\nopenai-version: 2020-10-01\r\nx-ratelimit-limit-requests: 10000\r\n"
        "x-ratelimit-remaining-requests: 9999\r\n\r\n%s", n, body);
    const char *models = "{\"object\":\"list\",\"data\":[{\"id\":\"bench-plain\",\"object\":\"model\",\"created\":1764000000,"
                         "\"owned_by\":\"bench\"}]}";
    list_len = (size_t)snprintf(list_reply, sizeof list_reply,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(models), models);
}

static void append(struct list *list, struct conn *c) {
    c->next = NULL;
    c->in_list = 1;
    if (list->tail) list->tail->next = c; else list->head = c;
    list->tail = c;
}

static struct conn *take(struct list *list) {
    struct conn *c = list->head;
    list->head = c->next;
    if (!list->head) list->tail = NULL;
    c->in_list = 0;
    return c;
}

static void drop(struct conn *c) {
    if (c->in_list) { c->closing = 1; return; }   /* its list frees it when its turn comes */
    conns[c->fd] = NULL;
    close(c->fd);
    free(c);
}

static void watch(struct conn *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = c->fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

/* 1: all taken; 0: the socket is full and the rest waits for EPOLLOUT; -1: the peer is gone. */
static int push(struct conn *c) {
    while (c->out_len) {
        ssize_t n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) {
            c->blocked = 1;
            watch(c, EPOLLIN | EPOLLOUT);
            return 0;
        }
        if (n < 0) return -1;
        c->out += n;
        c->out_len -= (size_t)n;
    }
    return 1;
}

static char *put(char *at, const char *text, size_t len) { memcpy(at, text, len); return at + len; }

static char *put_hex(char *at, uint64_t value, int digits) {
    for (int i = digits - 1; i >= 0; i--) *at++ = "0123456789abcdef"[(value >> (4 * i)) & 15];
    return at;
}

/* Closes an event; when the usage was asked for, every event but its own says that it has none, as OpenAI's do. */
static char *end_event(char *at, const struct conn *c) {
    if (c->wants_usage) at = put(at, ",\"usage\":null", 13);
    return put(at, "}\n\n", 3);
}

static size_t content_event(char *event, const struct conn *c) {
    char *at = put(event, EVENT_START, sizeof EVENT_START - 1);
    for (long i = 7, rest = c->index; i >= 0; i--, rest /= 10) at[i] = (char)('0' + rest % 10);
    at += 8;
    *at++ = ' ';
    at = put_hex(at, now_ns(), 16);
    *at++ = ' ';
    uint32_t mix = (uint32_t)c->index * 2654435761u;
    for (uint32_t i = 0; i <= (mix >> 28); i++) *at++ = (char)('a' + ((mix >> (i % 24)) + i) % 26);
    at = put(at, EVENT_END, sizeof EVENT_END - 1);
    return (size_t)(end_event(at, c) - event);
}

static size_t last_events(char *events, struct conn *c) {
    char *at = end_event(put(events, FINISH, sizeof FINISH - 1), c);
    if (c->wants_usage) at += sprintf(at, USAGE_EVENT, c->count, c->count + 300);
    at = put(at, DONE, sizeof DONE - 1);
    return (size_t)(at - events);
}

/* One piece of a stream: an HTTP chunk with one event in it; the last one carries the end of the stream. */
static char *put_piece(char *at, struct conn *c) {
    char event[EVENT_SIZE];
    int last = c->index >= c->count;
    if (c->index == 0) at = put(at, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    if (c->kind == SKIP && c->index == c->count - 2) c->index++;
    size_t len = last ? last_events(event, c) : content_event(event, c);
    at = put_hex(at, len, 4);
    at = put(at, "\r\n", 2);
    at = put(at, event, len);
    at = put(at, "\r\n", 2);
    if (last) at = put(at, "0\r\n\r\n", 5); else counters->chunks++;
    c->index++;
    return at;
}

/* Fills c->chunk with what the next send() carries. */
static void compose(struct conn *c) {
    char *at = c->chunk;
    for (int left = c->kind == BURST ? group : 1; left && c->index <= c->count; left--) at = put_piece(at, c);
    c->out = c->chunk;
    c->out_len = (size_t)(at - c->chunk);
}

static void receive(struct conn *c);

/* Sends a stream's next piece. 1: more to come; 0: nothing more for now (done, blocked or dropped). */
static int step(struct conn *c) {
    if (c->kind == CUT && c->index == c->count) { drop(c); return 0; }
    compose(c);
    int last = c->index > c->count, sent = push(c);
    if (last) {
        c->streaming = 0;
        counters->streams_finished++;
    }
    if (sent < 0) { drop(c); return 0; }
    if (last && sent && c->in_len) receive(c);
    return sent && !last;
}

static void resume(struct conn *c) {
    if (c->kind == PACED) append(&paced, c); else append(&bursts, c);
}

static void arm_timer(void) {
    struct itimerspec spec = {0};
    if (paced.head) {
        spec.it_value.tv_sec = (time_t)(paced.head->due / 1000000000u);
        spec.it_value.tv_nsec = (long)(paced.head->due % 1000000000u);
    }
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* All paced streams have the same pace, so the list is sorted by the time that they are due. */
static void run_paced(void) {
    uint64_t expirations;
    if (read(timer_fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN) perror("timerfd");
    while (paced.head && paced.head->due <= now_ns()) {
        struct conn *c = take(&paced);
        if (c->closing) { drop(c); continue; }
        c->due += PACE_NS;
        if (step(c)) append(&paced, c);
    }
    arm_timer();
}

static void run_bursts(void) {
    struct conn *end = bursts.tail;
    for (int going = end != NULL; going;) {
        struct conn *c = take(&bursts);
        going = c != end;
        if (c->closing) { drop(c); continue; }
        if (step(c)) append(&bursts, c);
    }
}

static void choose(struct conn *c, const char *body, size_t len) {
    static const struct { const char *name; enum kind kind; } kinds[] = {
        {"paced-", PACED}, {"burst-", BURST}, {"cut-", CUT}, {"skip-", SKIP}};
    c->kind = PLAIN;
    const char *model = memmem(body, len, "\"bench-", 7), *end = body + len;
    if (!model) return;
    model += 7;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t n = strlen(kinds[i].name);
        if ((size_t)(end - model) <= n || memcmp(model, kinds[i].name, n)) continue;
        if (!memmem(body, len, "\"stream\":true", 13) && !memmem(body, len, "\"stream\": true", 14)) return;
        c->kind = kinds[i].kind;
        c->count = strtol(model + n, NULL, 10);   /* ends at the name's closing quote */
        c->wants_usage = memmem(body, len, "\"include_usage\":true", 20) || memmem(body, len, "\"include_usage\": true", 21);
    }
}

static int answer(struct conn *c) {
    counters->requests++;
    if (c->in[0] != 'P') {
        c->out = list_reply;
        c->out_len = list_len;
        return push(c);
    }
    choose(c, c->in + c->head_len, c->body_len);
    if (c->kind == PLAIN) {
        c->out = plain_reply;
        c->out_len = plain_len;
        return push(c);
    }
    counters->streams_started++;
    c->index = 0;
    c->streaming = 1;
    c->due = now_ns() + PACE_NS;
    return 1;
}

static void read_head(struct conn *c, const char *end) {
    c->head_len = (size_t)(end - c->in) + 4;
    c->body_len = 0;
    c->chunked = 0;
    for (const char *line = memchr(c->in, '\n', c->head_len); line && line < end; line = memchr(line, '\n', (size_t)(end + 2 - line))) {
        line++;
        if (!strncasecmp(line, "content-length:", 15)) c->body_len = strtoul(line + 15, NULL, 10);
        else if (!strncasecmp(line, "transfer-encoding: chunked", 26)) c->chunked = 1;
    }
}

/* Whether a whole request is in the buffer. A chunked body is kept as it came: its text is searched, not decoded. */
static int whole(struct conn *c) {
    if (!c->head_len) {
        size_t from = c->scanned > 3 ? c->scanned - 3 : 0;
        const char *end = memmem(c->in + from, c->in_len - from, "\r\n\r\n", 4);
        c->scanned = c->in_len;
        if (!end) return 0;
        read_head(c, end);
    }
    if (c->chunked) {
        if (c->in_len < c->head_len + 5 || memcmp(c->in + c->in_len - 5, "0\r\n\r\n", 5)) return 0;
        c->body_len = c->in_len - c->head_len;
    }
    return c->in_len >= c->head_len + c->body_len;
}

static void receive(struct conn *c) {
    while (!c->streaming && !c->out_len && c->in_len && whole(c)) {
        size_t used = c->head_len + c->body_len;
        int sent = answer(c);
        c->in_len -= used;
        memmove(c->in, c->in + used, c->in_len);
        c->scanned = c->head_len = 0;
        if (sent < 0) { drop(c); return; }
    }
    if (c->streaming && c->index == 0 && step(c)) {
        resume(c);
        if (c->kind == PACED && paced.head == c) arm_timer();
    }
}

static void on_readable(struct conn *c) {
    ssize_t n = recv(c->fd, c->in + c->in_len, IN_SIZE - c->in_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) { drop(c); return; }
    c->in_len += (size_t)n;
    counters->bytes_in += (uint64_t)n;
    receive(c);
}

static void on_writable(struct conn *c) {
    int sent = push(c);
    if (sent < 0) { drop(c); return; }
    if (!sent) return;
    c->blocked = 0;
    watch(c, EPOLLIN);
    c->due = now_ns() + PACE_NS;
    if (c->streaming) { resume(c); if (paced.head == c) arm_timer(); }
    else if (c->in_len) receive(c);
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (fd >= MAX_CONNS) { close(fd); continue; }
        struct conn *c = malloc(sizeof *c);
        memset(c, 0, offsetof(struct conn, chunk));
        c->fd = fd;
        conns[fd] = c;
        counters->connections++;
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, len) || listen(listener, 4096)) { perror("responder"); exit(1); }
    getsockname(listener, (struct sockaddr *)&address, &len);
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static struct counters *share(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) { perror(path); exit(1); }
    return at;
}

static void dispatch(int listener, struct epoll_event *event) {
    int fd = event->data.fd;
    if (fd == listener) { accept_all(listener); return; }
    if (fd == timer_fd) { run_paced(); return; }
    if (conns[fd] && conns[fd]->blocked && event->events & EPOLLOUT) on_writable(conns[fd]);
    if (conns[fd] && event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(conns[fd]);
}

int main(int argc, char **argv) {
    if (argc != 3) { fprintf(stderr, "usage: responder PORT COUNTERS\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    build_replies();
    if (getenv("GROUP")) group = atoi(getenv("GROUP"));
    counters = share(argv[2]);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int listener = listen_on(atoi(argv[1])), own[] = {listener, timer_fd};
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = own[i]};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, own[i], &event);
    }
    for (struct epoll_event events[256];;) {
        int n = epoll_wait(epoll_fd, events, 256, bursts.head ? 0 : -1);
        for (int i = 0; i < n; i++) dispatch(listener, &events[i]);
        if (bursts.head) run_bursts();
    }
}
