// A link for udx.py and js/udx.js: two UDP ports, what comes to one leaves from the other after a
// delay, unless it is lost. `udp_link DELAY_US LOSS_PPM SEED` prints {"ready":true,"left":..,
// "right":..} and leaves when its stdin ends. Where the two ends are it learns from what they send.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 16384, SIZE = 2048, BATCH = 64 };

struct slot {
  int64_t due;
  int size;
  char data[SIZE];
};

struct way {  // from one socket to the other
  struct slot *ring;
  uint32_t head, tail;
};

static int sockets[2];
static struct sockaddr_in peers[2];
static struct way ways[2];
static int64_t delay_ns;
static uint32_t loss_ppm, chance;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static uint32_t draw(void) {
  chance ^= chance << 13;
  chance ^= chance >> 17;
  chance ^= chance << 5;
  return chance % 1000000;
}

static void receive(int from) {
  struct way *way = &ways[from];
  struct mmsghdr messages[BATCH];
  struct iovec vectors[BATCH];
  struct sockaddr_in sources[BATCH];
  for (;;) {
    int room = SLOTS - (int) (way->tail - way->head);
    int count = room < BATCH ? room : BATCH;
    if (count == 0) return;  // the kernel's buffer fills, and then it drops: a full queue
    memset(messages, 0, sizeof(messages));
    for (int i = 0; i < count; i++) {
      vectors[i] = (struct iovec){way->ring[(way->tail + i) % SLOTS].data, SIZE};
      messages[i].msg_hdr = (struct msghdr){
        .msg_name = &sources[i], .msg_namelen = sizeof(sources[i]), .msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    int got = recvmmsg(sockets[from], messages, count, MSG_DONTWAIT, NULL);
    if (got <= 0) return;
    int64_t due = now() + delay_ns;
    uint32_t kept = way->tail;
    for (int i = 0; i < got; i++) {
      peers[from] = sources[i];
      struct slot *slot = &way->ring[(way->tail + i) % SLOTS];
      if (draw() < loss_ppm) continue;
      struct slot *target = &way->ring[kept++ % SLOTS];
      if (target != slot) memcpy(target->data, slot->data, messages[i].msg_len);
      target->size = messages[i].msg_len;
      target->due = due;
    }
    way->tail = kept;
    if (got < count) return;
  }
}

static void deliver(int from) {
  struct way *way = &ways[from];
  int64_t time = now();
  while (way->head != way->tail && way->ring[way->head % SLOTS].due <= time) {
    struct mmsghdr messages[BATCH];
    struct iovec vectors[BATCH];
    int count = 0;
    memset(messages, 0, sizeof(messages));
    while (count < BATCH && way->head + count != way->tail) {
      struct slot *slot = &way->ring[(way->head + count) % SLOTS];
      if (slot->due > time) break;
      vectors[count] = (struct iovec){slot->data, slot->size};
      messages[count].msg_hdr = (struct msghdr){
        .msg_name = &peers[1 - from], .msg_namelen = sizeof(peers[0]), .msg_iov = &vectors[count], .msg_iovlen = 1};
      count++;
    }
    if (peers[1 - from].sin_port) {
      for (int sent = 0; sent < count;) {
        int n = sendmmsg(sockets[1 - from], messages + sent, count - sent, 0);
        sent += n > 0 ? n : 1;
      }
    }
    way->head += count;
  }
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  delay_ns = atoll(argv[1]) * 1000;
  loss_ppm = strtoul(argv[2], NULL, 10);
  chance = strtoul(argv[3], NULL, 10) | 1;
  int ports[2], size = 8 << 20;
  for (int i = 0; i < 2; i++) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    sockets[i] = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(sockets[i], SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    setsockopt(sockets[i], SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    if (bind(sockets[i], (struct sockaddr *) &address, sizeof(address))) return 1;
    getsockname(sockets[i], (struct sockaddr *) &address, &length);
    ports[i] = ntohs(address.sin_port);
    ways[i].ring = calloc(SLOTS, sizeof(struct slot));
  }
  printf("{\"ready\":true,\"left\":%d,\"right\":%d}\n", ports[0], ports[1]);
  fflush(stdout);
  for (;;) {
    int64_t due = INT64_MAX;
    for (int i = 0; i < 2; i++) {
      if (ways[i].head == ways[i].tail) continue;
      int64_t next = ways[i].ring[ways[i].head % SLOTS].due;
      if (next < due) due = next;
    }
    int64_t wait = due == INT64_MAX ? 1000000000 : due - now();
    if (wait < 0) wait = 0;
    struct timespec timeout = {wait / 1000000000, wait % 1000000000};
    struct pollfd fds[3] = {{sockets[0], POLLIN, 0}, {sockets[1], POLLIN, 0}, {0, POLLIN, 0}};
    ppoll(fds, 3, &timeout, NULL);
    char byte;
    if (fds[2].revents && read(0, &byte, 1) <= 0) return 0;
    receive(0);
    receive(1);
    deliver(0);
    deliver(1);
  }
}
