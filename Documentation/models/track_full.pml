/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A tracker of rust/track.rs in mode full: one page of one address space, a CPU with a
 * TLB, and those who look the page up in order to store to it: one that pins it without
 * a lock, as process_vm_writev() and direct I/O, and one that holds the mmap lock
 * meanwhile, as ptrace(). What mode fast has as well is in track.pml.
 *
 * PROPERTY a page that changes between the return of one begin() and the call of the
 *	next is in the epoch of the latter
 *
 * FULL -DSTORES=3 -DEPOCHS=4
 *
 * MUTANT track_skip_wrprotect	track_race wrprotect
 *	begin() leaves the entry writable
 * MUTANT track_skip_writable	track_race writable
 *	a page whose entry is writable and clean is not reported
 * MUTANT track_skip_lowered	track_race lowered
 *	what takes the permission alone marks nothing
 * MUTANT skip_flush		-
 *	no flush of the permission
 * MUTANT skip_pins		-
 *	begin() does not ask for pins
 * MUTANT pins_first		-
 *	it asks before it has taken the permission
 * MUTANT skip_mmap_lock	-
 *	begin() does not wait for who has the mmap lock
 */

#ifndef STORES
#define STORES	2	/* at the most */
#endif
#ifndef EPOCHS
#define EPOCHS	3
#endif

bool here = true;	/* the entry is present */
bool write, dirty;	/* its bits */
bool tlb, tlb_dirty;	/* the CPU knows it as writable, and as dirty */
bool table_lock;
byte readers;		/* of the mmap lock */
byte pins;
byte in_flight;
byte left = STORES;
bool marks;
bool owed;		/* changed, and not reported yet */
bool ended;

inline flush()
{
	tlb = false;
	tlb_dirty = false
}

/* A write fault makes the entry writable and dirty. */
inline fault()
{
	here = true;
	write = true;
	dirty = true
}

active proctype cpu()
{
	do
	:: atomic { left > 0 && tlb && tlb_dirty -> left--; owed = true }
	:: atomic { left > 0 && here && write ->
		left--;
		dirty = true;
		tlb = true;
		tlb_dirty = true;
		owed = true
	   }
	:: atomic { left > 0 && !(here && write) && !table_lock ->
		left--;
		fault();
		owed = true
	   }
	/* A load */
	:: atomic { here && write && !tlb -> tlb = true; tlb_dirty = dirty }
	:: atomic { tlb -> flush() }
	:: atomic { ended -> break }
	od
}

/* Permission that comes without a store: a read fault, mprotect(), a NUMA hint. */
active proctype give()
{
	do
	:: atomic { !table_lock && !(here && write) ->
		here = true;
		write = true;
		dirty = false
	   }
	:: atomic { ended -> break }
	od
}

/*
 * An invalidation, which takes the permission, or the entry: that not of a page that is
 * pinned. Reclaim refuses such a page of anonymous memory, and after munmap() it is not
 * what is tracked.
 */
active proctype invalidate()
{
	bool lowers;

	do
	:: atomic { !ended ->
		if
		:: lowers = true
		:: lowers = false
		fi;
#ifdef track_skip_lowered
		if
		:: !lowers -> in_flight++; marks = true
		:: else
		fi
#else
		in_flight++;
		marks = true
#endif
	   }
	   atomic { !table_lock ->
		write = false;
		if
		:: !lowers && !pins -> here = false; dirty = false
		:: else
		fi;
		flush()
	   }
	   atomic {
#ifdef track_skip_lowered
		if
		:: !lowers -> in_flight--
		:: else
		fi
#else
		in_flight--
#endif
	   }
	:: atomic { ended -> break }
	od
}

/* Another tracker, in mode fast: it takes the dirty bit, and tells. */
active proctype other()
{
	do
	:: atomic { here && dirty && !table_lock -> dirty = false; flush(); marks = true }
	:: atomic { ended -> break }
	od
}

/* Looks the page up without a lock: once more after it has pinned it. */
active proctype pinner()
{
	do
	:: atomic { left > 0 && here && write -> skip }
	   pins++;
	   if
	   :: atomic { here && write && left > 0 -> left-- }
	      owed = true
	   :: else
	   fi;
	   pins--
	:: atomic { ended -> break }
	od
}

/* Stores on behalf of another process, with its mmap lock. */
active proctype tracer()
{
	do
	:: atomic { left > 0 -> left--; readers++ }
	   atomic { !table_lock ->
		if
		:: !(here && write) -> fault()
		:: else
		fi
	   }
	   owed = true;
	   readers--
	:: atomic { ended -> break }
	od
}

active proctype tracker()
{
	bool due, in_epoch;
	byte n;

	do
	:: n < EPOCHS ->
		n++;
		atomic {
			due = owed;
			in_epoch = marks;
			marks = false
		}
		atomic {
			if
			:: in_flight > 0 -> marks = true
			:: else
			fi
		}
		/* The walk */
		atomic { table_lock = true }
#ifdef pins_first
		atomic {
			if
			:: here && pins -> in_epoch = true; marks = true
			:: else
			fi
		}
#endif
		atomic {
			if
			:: here && write ->
#ifndef track_skip_writable
#ifndef track_skip_wrprotect
				in_epoch = true;
#endif
#endif
#ifndef track_skip_wrprotect
				write = false;
#endif
				skip
			:: else
			fi
		}
#ifndef pins_first
#ifndef skip_pins
		atomic {
			if
			:: here && pins -> in_epoch = true; marks = true
			:: else
			fi
		}
#endif
#endif
		atomic {
			if
			:: here && dirty -> dirty = false; in_epoch = true
			:: else
			fi
		}
		table_lock = false;
#ifndef skip_flush
		atomic { flush() }
#endif
#ifndef skip_mmap_lock
		atomic { readers == 0 -> skip }
#endif
		/* The return: what is in the epoch is read from now on. */
		atomic {
			in_epoch = in_epoch || marks;
			assert(in_epoch || !due);
			if
			:: in_epoch -> owed = false
			:: else
			fi
		}
	:: else -> break
	od;
	ended = true
}
