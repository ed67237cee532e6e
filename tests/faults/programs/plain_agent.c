/* An agent that makes as few system calls as can be: what is refused to it and to process 1 alike does not stop it.
 *
 * It writes `ready`, the signals that it gets, and `end`, each as a line on stdout. If it is given `graceful`, TERM ends
 * it after a tenth of a second, with exit code 7; else it goes on. It leaves an orphan, which exits. If there is a
 * notify socket, it reports that it is ready, and its status, with a descriptor.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <poll.h>

static volatile sig_atomic_t stopped;

static void got(int number)
{
    if (number == SIGUSR1)
        (void)!write(1, "USR1\n", 5);
    else {
        (void)!write(1, "TERM\n", 5);
        stopped = 1;
    }
}

static void report_ready(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = path ? socket(AF_UNIX, SOCK_DGRAM, 0) : -1;
    if (fd < 0)
        return;
    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    size_t length = strlen(address.sun_path);
    if (path[0] == '@')
        address.sun_path[0] = 0;
    socklen_t size = sizeof(sa_family_t) + length;
    sendto(fd, "READY=1", 7, MSG_DONTWAIT, (struct sockaddr *)&address, size);

    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec text = {.iov_base = "STATUS=up", .iov_len = 9};
    struct msghdr message = {.msg_name = &address, .msg_namelen = size, .msg_iov = &text, .msg_iovlen = 1,
                             .msg_control = control, .msg_controllen = sizeof(control)};
    *CMSG_FIRSTHDR(&message) =
        (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    *(int *)CMSG_DATA(CMSG_FIRSTHDR(&message)) = fd;
    sendmsg(fd, &message, MSG_DONTWAIT);
    close(fd);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = got};
    int failed = sigaction(SIGUSR1, &action, NULL) || sigaction(SIGTERM, &action, NULL);
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0)
            _exit(3);
        _exit(0);
    }
    report_ready();
    (void)!write(1, "ready\n", 6);
    if (argc > 1 && strcmp(argv[1], "once") == 0)
        _exit(failed);
    while (!(stopped && argc > 1 && strcmp(argv[1], "graceful") == 0))
        if (poll(NULL, 0, 20) < 0)
            for (volatile long i = 0; i < 10000000; i++) /* also where poll(2) is refused */
                ;
    for (int i = 0; i < 5; i++)
        poll(NULL, 0, 20);
    (void)!write(1, "end\n", 4);
    _exit(7);
}
