/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A page that a device has for itself, faults, fork, and the owner of the event:
 * rust/exclusive/batch.rs, rust/exclusive/device.rs, rust/exclusive/revoke.rs.
 *
 * PROPERTY a sum of atomic additions by CPUs and two devices without atomics is exact;
 *	what is added after a fork stays out of the page that the child shares
 *
 * One page of anonymous memory. A device adds by a load and a store, under the lock that
 * its notifier takes; a CPU adds in one step, through its TLB or the entry. fork() holds
 * the mmap lock for writing and gives the parent its page back before they share it. An
 * invalidation, as by madvise(), takes the page from its place without the folio lock;
 * that it comes back there at once makes it a worse one.
 *
 * FULL -DADDS=2
 *
 * MUTANT ignore_invalidation	exclusive control_ignore_invalidation
 *	a device lets go of a page that it is told of
 * MUTANT skip_flush		exclusive control_no_flush
 *	the flush of a batch
 * MUTANT no_sequence		-
 *	a device is programmed only if nothing was invalidated since read_begin()
 * MUTANT owner_of_others	-
 *	the event tells all devices but the one that the page is for
 * MUTANT no_device_lock	-
 *	the invalidation waits for the device's lock
 * MUTANT fork_copies_entry	-
 *	a fork gives the page back, with all that a fault does, before it copies
 */

#ifndef CPUS
#define CPUS	1
#endif
#ifndef ADDS
#define ADDS	1	/* of each device and each CPU */
#endif
#define DEVICES	2

/* The entry: present and writable, read-only for COW, or device-exclusive. */
mtype = { writable, readonly, exclusive };
mtype entry = writable;
bool locked;		/* the page-table lock */
bool folio_locked;
bool tlb[CPUS];

byte mmap_readers;
bool mmap_writer;

/* Of the interval notifiers: whether the sequence is that of read_begin(). */
bool current[DEVICES];
byte invalidating;
bool device_locked[DEVICES];
bool has_page[DEVICES];	/* DevicePages */

byte sum, added;

bool shared;		/* with a child */

inline read_mmap()
{
	atomic { !mmap_writer -> mmap_readers++ }
}

/* A write fault breaks COW: the parent has a page of its own. */
inline break_cow()
{
	atomic {
		if
		:: entry == readonly && !locked ->
			printf("process %d: the page is copied\n", _pid);
			entry = writable;
			shared = false
		:: entry != readonly
		fi
	}
}

inline flush()
{
	atomic {
		tlb[0] = false;
#if CPUS > 1
		tlb[1] = false;
#endif
		printf("process %d: flush\n", _pid)
	}
}

/* IntervalNotifier's callback: the sequence first, then the lock, then the pages. */
inline tell(who)
{
#ifndef no_device_lock
	atomic { !device_locked[who] -> device_locked[who] = true };
#endif
	atomic {
		current[who] = false;
#ifndef ignore_invalidation
		printf("device %d: is told, had the page: %d\n", who, has_page[who]);
		has_page[who] = false;
#endif
#ifndef no_device_lock
		device_locked[who] = false
#endif
	}
}

/* remove_device_exclusive_entry(), and revoke(): MMU_NOTIFY_CLEAR, and the entry again. */
inline restore()
{
	atomic { !folio_locked -> folio_locked = true };
	invalidating++;
	tell(0);
	tell(1);
	atomic { !locked -> locked = true };
	atomic {
		if
		:: entry == exclusive ->
			printf("process %d: the entry is restored\n", _pid);
			entry = writable
		:: else
		fi;
		locked = false
	};
	invalidating--;
	folio_locked = false
}

proctype device(byte d)
{
	byte adds, value;

	do
	:: adds < ADDS && !has_page[d] ->
		read_mmap();
		/* read_begin() waits while something is being invalidated. */
		atomic { invalidating == 0 -> current[d] = true };
		break_cow();
		/* Batch: the folio is locked, the entry replaced, the TLB flushed. */
		atomic { !folio_locked -> folio_locked = true };
		invalidating++;
		/* MMU_NOTIFY_EXCLUSIVE, owner: d */
#ifndef owner_of_others
		tell(1 - d);
#endif
		atomic { !locked -> locked = true };
		atomic {
			printf("device %d: the entry is exclusive\n", d);
			entry = exclusive;
			locked = false
		};
#ifndef skip_flush
before_flush:
		flush();
#endif
		invalidating--;
		/* lock_if_current() */
		atomic { !device_locked[d] -> device_locked[d] = true };
		atomic {
			if
#ifdef no_sequence
			:: true ->
#else
			:: current[d] && invalidating == 0 ->
#endif
				printf("device %d: is programmed\n", d);
				has_page[d] = true
#ifndef no_sequence
			:: else -> printf("device %d: tries again\n", d)
#endif
			fi;
			device_locked[d] = false;
			folio_locked = false;
			mmap_readers--
		}
	:: adds < ADDS && has_page[d] ->
		/* DevicePage: atomic_add() of the test driver, under the lock */
		atomic { !device_locked[d] -> device_locked[d] = true };
		if
		:: has_page[d] ->
			atomic {
				printf("device %d: loads %d\n", d, sum);
				value = sum
			};
device_stores:
			atomic {
				value++;
				printf("device %d: stores %d\n", d, value);
				sum = value;
				added++;
				adds++;
				assert(sum == added && !shared)
			}
		:: else
		fi;
		device_locked[d] = false
	:: adds == ADDS -> break
	od
}

/* madvise(MADV_DONTNEED) and a fault, as far as a device is concerned: no folio lock. */
proctype invalidate()
{
	read_mmap();
	invalidating++;
	tell(0);
	tell(1);
	atomic { !locked -> locked = true };
	atomic {
		if
		:: entry == exclusive ->
			printf("process %d: the entry is taken away, and comes back\n", _pid);
			entry = writable
		:: else
		fi;
		locked = false
	};
	invalidating--;
	mmap_readers--
}

inline add()
{
	sum++;
	added++;
	adds++;
	printf("cpu %d: adds, %d\n", c, sum);
	assert(sum == added && !shared)
}

proctype cpu(byte c)
{
	byte adds;

	do
	:: atomic { adds < ADDS && tlb[c] -> add() }
	:: atomic { adds < ADDS && !tlb[c] && entry == writable -> tlb[c] = true; add() }
	:: adds < ADDS && !tlb[c] && entry != writable ->
		read_mmap();
		if
		:: entry == exclusive -> restore()
		:: else -> break_cow()
		fi;
		mmap_readers--
	:: atomic { !tlb[c] && entry == writable -> tlb[c] = true }	/* a load */
	:: atomic { tlb[c] -> tlb[c] = false }
	:: adds == ADDS -> break
	od
}

/* dup_mmap(), copy_pte_range(): what is exclusive is restored before it is shared. */
proctype fork()
{
	atomic { mmap_readers == 0 && !mmap_writer -> mmap_writer = true };
	/* MMU_NOTIFY_PROTECTION_PAGE comes before all of it. */
	invalidating++;
	tell(0);
	tell(1);
#ifndef fork_copies_entry
	if
	:: entry == exclusive -> restore()
	:: else
	fi;
#endif
	atomic { !locked -> locked = true };
	atomic {
		if
		:: entry == writable -> entry = readonly
		:: else
		fi;
		locked = false
	};
	flush();
	atomic {
		printf("fork: the child shares the page\n");
		shared = true;
		invalidating--;
		mmap_writer = false
	}
}

init {
	atomic {
		run device(0);
		run device(1);
		run cpu(0);
#if CPUS > 1
		run cpu(1);
#endif
		if
		:: run invalidate()
		:: run fork()
		fi
	}
}
