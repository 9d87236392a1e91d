/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Subscriptions to invalidations, and what was heard as text.
 */
#ifndef NOTIFIER_H
#define NOTIFIER_H

#include "mmops_selftest.h"

#define HEARD_EVENTS	256
#define HEARD_TEXT	(HEARD_EVENTS * 48)

/* What a call of MMOPS_IOC_NOTIFIER_LOG reported. */
struct heard {
	struct mmops_notifier_event events[HEARD_EVENTS];
	unsigned int nr;
	uint64_t lost;
	bool released;
	char text[HEARD_TEXT];
};

static inline int subscribe_capacity(int dev, int pidfd, const void *addr, size_t len,
				     uint32_t flags, uint32_t capacity)
{
	struct mmops_notifier_subscribe arg = {
		.pidfd = pidfd,
		.flags = flags,
		.addr = (uintptr_t)addr,
		.len = len,
		.capacity = capacity,
	};

	return ioctl(dev, MMOPS_IOC_NOTIFIER_SUBSCRIBE, &arg) ? -errno : 0;
}

/* To @pages of the caller itself. */
static inline int subscribe(int dev, const void *addr, size_t pages, uint32_t flags)
{
	return subscribe_capacity(dev, -1, addr, pages * page_size(), flags, HEARD_EVENTS);
}

static inline const char *event_name(uint32_t event)
{
	static const char *const names[] = {
		"unmap", "clear", "protection-vma", "protection-page", "soft-dirty", "release",
		"migrate", "exclusive",
	};

	return event < sizeof(names) / sizeof(names[0]) ? names[event] : "?";
}

/* Where a test plays, from the base that hear() is told. */
#define HEARD_PAGES	(4 * (long)PMD_PAGES)

/*
 * Read all events, and put those near @base into words: "clear 0-8, unmap 2-3
 * own" are events of pages counted from there. "end" is that of an invalidation,
 * "atomic" one that must not sleep.
 */
static inline int hear(int dev, const void *base, struct heard *heard, uint32_t flags)
{
	struct mmops_notifier_log arg = {
		.events = (uintptr_t)heard->events,
		.nr = HEARD_EVENTS,
		.flags = flags,
	};
	size_t len = 0;
	unsigned int i;

	if (ioctl(dev, MMOPS_IOC_NOTIFIER_LOG, &arg))
		return -errno;
	heard->nr = arg.nr;
	heard->lost = arg.lost;
	heard->released = arg.released;
	heard->text[0] = '\0';
	for (i = 0; i < arg.nr; i++) {
		const struct mmops_notifier_event *e = &heard->events[i];
		long first = (long)(e->start - (uintptr_t)base) / (long)page_size();
		long end = (long)(e->end - (uintptr_t)base) / (long)page_size();

		if (first < 0 || end > HEARD_PAGES)
			continue;
		len += snprintf(heard->text + len, sizeof(heard->text) - len,
				"%s%s %ld-%ld%s%s%s", len ? ", " : "", event_name(e->event), first,
				end, e->flags & MMOPS_NOTIFIER_OWN ? " own" : "",
				e->flags & MMOPS_NOTIFIER_END ? " end" : "",
				e->flags & MMOPS_NOTIFIER_BLOCKABLE ? "" : " atomic");
	}
	return arg.nr;
}

#endif /* NOTIFIER_H */
