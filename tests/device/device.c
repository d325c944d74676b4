// A device on libwebsockets, which behaves as a legacy Cuttlefish device does towards its signaling server.
//
//     device URL ID [RECONNECT_MS [PING_S HANGUP_S]]
//
// Tests run it against a server and read its events, one line each, from its standard output:
//
//     connected              the WebSocket is open, and `register` is queued
//     config TEXT            a config message
//     peer N new|old         a message of client N arrived; its peer was created, or existed
//     message N PAYLOAD      that message; the device answers {"type":"answer","echo":PAYLOAD}
//     gone N                 `client_disconnected` arrived; the peer is removed
//     error TEXT             {"error":TEXT}, which schedules a reconnect
//     broken MESSAGE         a message of unknown type, which schedules a reconnect
//     dropped N              N bytes of a message that is fragmented, binary or longer than the receive buffer
//     pong                   the server answered a ping
//     closed CODE REASON     the connection ended, which schedules a reconnect; 1006 without a close frame
//     failed REASON          the connection failed, which doubles the delay and schedules a reconnect
//     reconnect in MS        the timer is set
//     lost                   the timer was set already: the device never reconnects, and exits with LOST
//
// Its standard input takes commands, one line each: `forward N JSON`, `say TEXT` (sent as it is) and `quit`; end of file
// means `quit`. A text that is not written when its connection ends is not sent on the next one.

#include <libwebsockets.h>

#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Of certificates that do not verify, OpenSSL's errors 18 and 19 are accepted (docs/protocol.md 3), and any host name.
enum { TLS_FLAGS = LCCSCF_USE_SSL | LCCSCF_ALLOW_SELFSIGNED | LCCSCF_SKIP_SERVER_CERT_HOSTNAME_CHECK };

enum { MAX_MESSAGE = 65536, MAX_COMMAND = 8 * MAX_MESSAGE, MAX_DELAY_FACTOR = 60, USAGE = 2, LOST = 3 };

struct slice {
    const char *at;
    size_t length;
};

struct outgoing {
    struct outgoing *next;
    size_t length;
    unsigned char bytes[];  // LWS_PRE bytes for the library, then the text.
};

struct connection {
    unsigned close_code;
    char close_reason[126];
};

static struct {
    struct lws_context *context;
    const char *address, *id;
    char path[256];
    int port;
    bool tls;
    lws_retry_bo_t validity;
    lws_sorted_usec_list_t timer;
    bool reconnect_pending, is_done;
    unsigned first_delay, delay;  // Milliseconds.
    int exit_code;
    struct lws *newest;  // The connection that was opened last, or NULL.
    struct outgoing *first, **last;
    int *peers;
    size_t peer_count;
} device = {.first_delay = 1000, .validity = {.secs_since_valid_ping = 3, .secs_since_valid_hangup = 10}};

// JSON: the server sends valid, compact JSON (docs/protocol.md 2.9), so it is enough to find the end of a value.

static const char *value_end(const char *at, const char *end) {
    int depth = 0;
    for (bool in_string = false; at < end; at++) {
        if (in_string) {
            if (*at == '\\')
                at++;
            else if (*at == '"')
                in_string = false;
        } else if (*at == '"')
            in_string = true;
        else if (*at == '{' || *at == '[')
            depth++;
        else if (depth == 0 && strchr(",:}]", *at))
            return at;
        else if (*at == '}' || *at == ']')
            depth--;
    }
    return end;
}

static struct slice member(struct slice object, const char *name) {
    const char *end = object.at + object.length, *at = object.at + 1;
    while (at < end && *at == '"') {
        const char *colon = value_end(at, end), *comma = colon < end ? value_end(colon + 1, end) : end;
        if (comma == end)
            break;
        if ((size_t)(colon - at) == strlen(name) + 2 && memcmp(at + 1, name, strlen(name)) == 0)
            return (struct slice){colon + 1, (size_t)(comma - colon - 1)};
        at = comma + 1;
    }
    return (struct slice){NULL, 0};
}

static bool is(struct slice value, const char *json) {
    return value.length == strlen(json) && memcmp(value.at, json, value.length) == 0;
}

// Texts that are queued until the connection is writable.

__attribute__((format(printf, 1, 2))) static void queue(const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    struct outgoing *text = malloc(sizeof *text + LWS_PRE + (size_t)length + 1);
    if (length < 0 || !text)
        abort();
    *text = (struct outgoing){.length = (size_t)length};
    vsnprintf((char *)text->bytes + LWS_PRE, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
    *device.last = text;
    device.last = &text->next;
    if (device.newest)
        lws_callback_on_writable(device.newest);
}

static struct outgoing *dequeue(void) {
    struct outgoing *text = device.first;
    if (text && !(device.first = text->next))
        device.last = &device.first;
    return text;
}

static void forget_queued(void) {
    for (struct outgoing *text; (text = dequeue());)
        free(text);
}

static int write_one(struct lws *wsi) {
    struct outgoing *text = wsi == device.newest ? dequeue() : NULL;
    if (!text)
        return 0;
    int written = lws_write(wsi, text->bytes + LWS_PRE, text->length, LWS_WRITE_TEXT);
    free(text);
    if (device.first)
        lws_callback_on_writable(wsi);
    return written < 0 ? -1 : 0;
}

// Connecting: errors, closes and failures all set the one timer, and a timer that is set twice ends the device.

static void finish(int exit_code) {
    device.is_done = true;
    device.exit_code = exit_code;
}

static void open_connection(lws_sorted_usec_list_t *timer);

static void schedule_reconnect(void) {
    if (device.reconnect_pending) {
        puts("lost");
        finish(LOST);
        return;
    }
    printf("reconnect in %u\n", device.delay);
    device.reconnect_pending = true;
    lws_sul_schedule(device.context, 0, &device.timer, open_connection, (lws_usec_t)device.delay * LWS_US_PER_MS);
}

static void on_failure(const char *reason) {
    printf("failed %s\n", reason);
    unsigned most = device.first_delay * MAX_DELAY_FACTOR;
    device.delay = device.delay > most / 2 ? most : device.delay * 2;
    schedule_reconnect();
}

static void open_connection(lws_sorted_usec_list_t *timer) {
    (void)timer;
    device.reconnect_pending = false;
    struct lws_client_connect_info info = {
        .context = device.context,
        .address = device.address,
        .port = device.port,
        .path = device.path,
        .host = device.address,
        .origin = device.address,
        .protocol = "webrtc-operator",
        .ssl_connection = device.tls ? TLS_FLAGS : 0,
        .retry_and_idle_policy = &device.validity,
    };
    if (!lws_client_connect_via_info(&info) && !device.reconnect_pending)
        on_failure("no connection");
}

// Messages.

static bool add_peer(int client) {
    for (size_t i = 0; i < device.peer_count; i++)
        if (device.peers[i] == client)
            return false;
    int *peers = realloc(device.peers, (device.peer_count + 1) * sizeof *peers);
    if (!peers)
        abort();
    device.peers = peers;
    device.peers[device.peer_count++] = client;
    return true;
}

static void remove_peer(int client) {
    for (size_t i = 0; i < device.peer_count; i++)
        if (device.peers[i] == client)
            device.peers[i] = device.peers[--device.peer_count];
}

static void on_message(struct slice text) {
    struct slice type = member(text, "message_type"), payload = member(text, "payload");
    struct slice number = member(text, "client_id"), error = member(text, "error");
    long long client = number.at ? strtoll(number.at, NULL, 10) : 0;
    bool is_client = client > 0 && client <= INT_MAX;
    if (is(type, "\"config\"")) {
        printf("config %.*s\n", (int)text.length, text.at);
    } else if (is(type, "\"client_msg\"") && is_client && payload.at) {
        printf("peer %lld %s\n", client, add_peer((int)client) ? "new" : "old");
        printf("message %lld %.*s\n", client, (int)payload.length, payload.at);
        queue("{\"message_type\":\"forward\",\"client_id\":%lld,\"payload\":{\"type\":\"answer\",\"echo\":%.*s}}",
              client, (int)payload.length, payload.at);
    } else if (is(type, "\"client_disconnected\"") && is_client) {
        printf("gone %lld\n", client);
        remove_peer((int)client);
    } else {
        if (error.at)
            printf("error %.*s\n", (int)error.length, error.at);
        else
            printf("broken %.*s\n", (int)text.length, text.at);
        schedule_reconnect();
    }
}

static void on_receive(struct lws *wsi, const void *in, size_t length) {
    bool is_whole = lws_is_first_fragment(wsi) && lws_is_final_fragment(wsi);
    if (is_whole && !lws_frame_is_binary(wsi) && length <= MAX_MESSAGE)
        on_message((struct slice){in, length});
    else
        printf("dropped %zu\n", length);
}

static void on_close_frame(struct connection *connection, const unsigned char *in, size_t length) {
    if (length < 2)
        return;
    connection->close_code = (unsigned)(in[0] << 8 | in[1]);
    snprintf(connection->close_reason, sizeof connection->close_reason, "%.*s", (int)length - 2, (const char *)in + 2);
}

static int on_websocket(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t length) {
    struct connection *connection = user;
    if (device.is_done)
        return 0;
    switch (reason) {
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        puts("connected");
        *connection = (struct connection){.close_code = 1006};
        device.newest = wsi;
        device.delay = device.first_delay;
        forget_queued();
        queue("{\"message_type\":\"register\",\"device_id\":\"%s\",\"device_info\":{\"library\":\"libwebsockets\"}}",
              device.id);
        return 0;
    case LWS_CALLBACK_CLIENT_RECEIVE:
        on_receive(wsi, in, length);
        return 0;
    case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
        puts("pong");
        return 0;
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        return write_one(wsi);
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        on_close_frame(connection, in, length);
        return 0;
    case LWS_CALLBACK_CLIENT_CLOSED:
        if (wsi == device.newest)
            device.newest = NULL;
        printf("closed %u %s\n", connection->close_code, connection->close_reason);
        schedule_reconnect();
        return 0;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        on_failure(in ? in : "");
        return 0;
    default:
        return 0;
    }
}

// Commands.

static void on_command(char *line) {
    char *payload;
    if (strncmp(line, "forward ", 8) == 0) {
        long client = strtol(line + 8, &payload, 10);
        queue("{\"message_type\":\"forward\",\"client_id\":%ld,\"payload\":%s}", client, payload);
    } else if (strncmp(line, "say ", 4) == 0)
        queue("%s", line + 4);
    else
        finish(strcmp(line, "quit") == 0 ? 0 : USAGE);
}

static int on_stdin(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t length) {
    static char lines[MAX_COMMAND];
    static size_t filled;
    (void)wsi, (void)user, (void)in, (void)length;
    if (reason != LWS_CALLBACK_RAW_RX_FILE)
        return 0;
    ssize_t count = read(STDIN_FILENO, lines + filled, sizeof lines - filled);
    if (count <= 0) {
        finish(filled < sizeof lines ? 0 : USAGE);
        return -1;
    }
    filled += (size_t)count;
    for (char *end; (end = memchr(lines, '\n', filled));) {
        *end = '\0';
        on_command(lines);
        filled -= (size_t)(end + 1 - lines);
        memmove(lines, end + 1, filled);
    }
    return 0;
}

static const struct lws_protocols protocols[] = {
    {.name = "webrtc-operator",
     .callback = on_websocket,
     .per_session_data_size = sizeof(struct connection),
     .rx_buffer_size = MAX_MESSAGE},
    {.name = "stdin", .callback = on_stdin},
    {.name = NULL},
};

int main(int count, char **arguments) {
    const char *scheme, *path;
    if (count < 3 || count == 5 || count > 6 ||
        lws_parse_uri(arguments[1], &scheme, &device.address, &device.port, &path)) {
        fprintf(stderr, "usage: %s URL ID [RECONNECT_MS [PING_S HANGUP_S]]\n", arguments[0]);
        return USAGE;
    }
    device.tls = strcmp(scheme, "wss") == 0;
    snprintf(device.path, sizeof device.path, "/%s", path);
    device.id = arguments[2];
    if (count > 3)
        device.first_delay = (unsigned)atoi(arguments[3]);
    if (count > 5) {
        device.validity.secs_since_valid_ping = (uint16_t)atoi(arguments[4]);
        device.validity.secs_since_valid_hangup = (uint16_t)atoi(arguments[5]);
    }
    device.delay = device.first_delay;
    device.last = &device.first;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    lws_set_log_level(LLL_ERR | LLL_WARN, NULL);

    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN,
        .protocols = protocols,
        .options = LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT,
        .gid = -1,
        .uid = -1,
    };
    device.context = lws_create_context(&info);
    lws_sock_file_fd_type input = {.filefd = STDIN_FILENO};
    struct lws_vhost *vhost = device.context ? lws_get_vhost_by_name(device.context, "default") : NULL;
    if (!vhost || !lws_adopt_descriptor_vhost(vhost, LWS_ADOPT_RAW_FILE_DESC, input, "stdin", NULL))
        return EXIT_FAILURE;
    open_connection(NULL);
    while (!device.is_done)
        if (lws_service(device.context, 0) < 0)
            finish(EXIT_FAILURE);
    lws_context_destroy(device.context);
    forget_queued();
    free(device.peers);
    return device.exit_code;
}
