/*
 * A chained CNI plugin (CNI 0.3.0 to 1.1.0) that makes no network: ADD fails, so that the pod's start is tried again, while the mesh's hooks are not
 * in the kernel (a node that has just booted, before its agent has started). Configuration beside type: `pins`, the folder of the agent's
 * pins; `exclude`, namespaces whose pods always come up. Static, no JSON library: of the configuration four fields are looked for, and prevResult is
 * handed on as it came.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_CONFIG (1 << 20)
#define MAX_DEPTH 64
#define TRY_AGAIN_LATER 11
#define INVALID_CONFIG 7
#define CANNOT_DECODE 6
#define BAD_ENVIRONMENT 4

struct span {
	const char *at;
	size_t length;
};

struct config {
	struct span version; /* of strings: without quotes */
	struct span pins;
	struct span exclude;
	struct span previous;
};

static int fail(struct span version, int code, const char *message, const char *details)
{
	printf("{\"cniVersion\":\"%.*s\",\"code\":%d,\"msg\":\"culvert-cni: %s\",\"details\":\"%s\"}\n", (int)version.length,
	       version.at ? version.at : "", code, message, details);
	return 1;
}

static const char *skip_blank(const char *at)
{
	while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
		at++;
	return at;
}

/* Behind the string that begins at `at`, or NULL. */
static const char *skip_string(const char *at)
{
	for (at++; *at && *at != '"'; at++) {
		if (*at == '\\' && !*++at)
			return NULL;
	}
	return *at == '"' ? at + 1 : NULL;
}

/* Behind the value that begins at `at`, or NULL where there is none. Brackets are matched; what is between them only as far as that needs. */
static const char *skip_value(const char *at)
{
	int depth = 0;

	do {
		at = skip_blank(at);
		if (*at == '"') {
			at = skip_string(at);
			if (!at)
				return NULL;
		} else if (*at == '{' || *at == '[') {
			if (++depth > MAX_DEPTH)
				return NULL;
			at++;
		} else if (depth > 0 && (*at == '}' || *at == ']')) {
			depth--;
			at++;
		} else if (depth > 0 && (*at == ',' || *at == ':')) {
			at++;
		} else {
			size_t length = strcspn(at, "{}[],:\" \t\r\n");

			if (length == 0)
				return NULL;
			at += length;
		}
	} while (depth > 0);
	return at;
}

static void take_string(struct span value, struct span *into)
{
	if (value.length >= 2 && value.at[0] == '"')
		*into = (struct span){ value.at + 1, value.length - 2 };
}

static void take_field(struct span key, struct span value, struct config *config)
{
	if (key.length == 10 && !memcmp(key.at, "cniVersion", 10))
		take_string(value, &config->version);
	else if (key.length == 4 && !memcmp(key.at, "pins", 4))
		take_string(value, &config->pins);
	else if (key.length == 7 && !memcmp(key.at, "exclude", 7))
		config->exclude = value;
	else if (key.length == 10 && !memcmp(key.at, "prevResult", 10))
		config->previous = value;
}

/* The fields of the outermost object. 0: it is one. */
static int read_config(const char *text, struct config *config)
{
	const char *at = skip_blank(text);

	if (*at++ != '{')
		return -1;
	for (at = skip_blank(at); *at != '}'; at = skip_blank(at)) {
		const char *key = at, *value, *end = *at == '"' ? skip_string(at) : NULL;

		if (!end)
			return -1;
		at = skip_blank(end);
		if (*at++ != ':')
			return -1;
		value = skip_blank(at);
		at = skip_value(value);
		if (!at)
			return -1;
		take_field((struct span){ key + 1, end - key - 2 }, (struct span){ value, at - value }, config);
		at = skip_blank(at);
		if (*at == ',')
			at++;
		else if (*at != '}')
			return -1;
	}
	return *skip_blank(at + 1) == 0 ? 0 : -1;
}

/* One of the strings of a list of strings. */
static int holds(struct span list, struct span name)
{
	const char *at = list.at ? list.at + 1 : "", *end;

	for (at = skip_blank(at); *at == '"'; at = skip_blank(at)) {
		end = skip_string(at);
		if (!end)
			return 0;
		if ((size_t)(end - at - 2) == name.length && !memcmp(at + 1, name.at, name.length))
			return 1;
		at = skip_blank(end);
		if (*at == ',')
			at++;
	}
	return 0;
}

/* Of K8S_POD_NAMESPACE in CNI_ARGS, `A=b;C=d`. */
static struct span pod_namespace(void)
{
	static const char name[] = "K8S_POD_NAMESPACE=";
	const char *at = getenv("CNI_ARGS");

	while (at && *at) {
		size_t length = strcspn(at, ";");

		if (length >= sizeof name - 1 && !memcmp(at, name, sizeof name - 1))
			return (struct span){ at + sizeof name - 1, length - (sizeof name - 1) };
		at += length + (at[length] == ';');
	}
	return (struct span){ "", 0 };
}

/* A pinned link that is attached to a cgroup that is there. */
static int is_attached(const char *path)
{
	union bpf_attr get = {}, ask = {};
	struct bpf_link_info info = {};
	int fd, bad;

	get.pathname = (__u64)(unsigned long)path;
	fd = syscall(SYS_bpf, BPF_OBJ_GET, &get, sizeof get);
	if (fd < 0)
		return 0;
	ask.info.bpf_fd = fd;
	ask.info.info_len = sizeof info;
	ask.info.info = (__u64)(unsigned long)&info;
	bad = syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &ask, sizeof ask);
	close(fd);
	return !bad && info.type == BPF_LINK_TYPE_CGROUP && info.cgroup.cgroup_id != 0;
}

/* The hooks that hold a new pod: whatever version of the maps they are of. */
static int is_hooked(struct span pins)
{
	static const char *const hooks[] = { "connect4", "connect6", "hold_ingress" };
	char path[4096], link[4352];
	struct dirent *entry;
	int hooked = 0;
	DIR *folder;

	snprintf(path, sizeof path, "%.*s", (int)pins.length, pins.at);
	folder = opendir(path);
	while (folder && !hooked && (entry = readdir(folder))) {
		if (strncmp(entry->d_name, "abi-", 4))
			continue;
		hooked = 1;
		for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
			snprintf(link, sizeof link, "%s/%.200s/links/%s", path, entry->d_name, hooks[i]);
			hooked = hooked && is_attached(link);
		}
	}
	if (folder)
		closedir(folder);
	return hooked;
}

static int add_or_check(const char *text, int is_add)
{
	struct config config = {};

	if (read_config(text, &config))
		return fail(config.version, CANNOT_DECODE, "the configuration cannot be read", "not a JSON object");
	if (!config.pins.length)
		return fail(config.version, INVALID_CONFIG, "the configuration lacks pins", "the folder of the agent's pins");
	if (!config.previous.length)
		return fail(config.version, INVALID_CONFIG, "there is no prevResult", "it has to stand behind another plugin");
	if (!holds(config.exclude, pod_namespace()) && !is_hooked(config.pins))
		return fail(config.version, TRY_AGAIN_LATER, "the mesh's agent has not started on this node yet",
			    "no pod is started before its connections can be held; see docs/operations.md, CNI plugin");
	if (is_add)
		printf("%.*s\n", (int)config.previous.length, config.previous.at);
	return 0;
}

int main(void)
{
	const char *command = getenv("CNI_COMMAND");
	char *text = calloc(1, MAX_CONFIG + 1);
	size_t length = 0;
	ssize_t bytes;

	if (!command || !text)
		return fail((struct span){ "1.0.0", 5 }, BAD_ENVIRONMENT, "CNI_COMMAND is not set", "a container runtime starts this");
	if (!strcmp(command, "VERSION")) {
		puts("{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}");
		return 0;
	}
	/* Nothing was made, so nothing is to be taken away. The network is well without us (STATUS): our own agent has to come up by it. */
	if (!strcmp(command, "DEL") || !strcmp(command, "GC") || !strcmp(command, "STATUS"))
		return 0;
	if (strcmp(command, "ADD") && strcmp(command, "CHECK"))
		return fail((struct span){ "1.0.0", 5 }, BAD_ENVIRONMENT, "CNI_COMMAND is not known", "ADD, CHECK, DEL, GC, STATUS, VERSION");
	while (length < MAX_CONFIG && (bytes = read(0, text + length, MAX_CONFIG - length)) > 0)
		length += bytes;
	return add_or_check(text, !strcmp(command, "ADD"));
}
