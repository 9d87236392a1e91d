/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Zap, writeback and a CPU with a stale translation: rust/gather.rs.
 *
 * PROPERTY every store reaches the disk; no CPU can reach a page that was freed;
 *	truncation leaves no page that counts as mapped
 *
 * One page of a file, mapped once. Reclaim may take it when it is clean, unmapped and
 * nobody else has it; it comes back from the disk. Truncation ends it.
 *
 * FULL -DCPUS=2 -DZAPS=2
 *
 * MUTANT mark_before_flush	zap_race control_mark_before_flush
 *	the folio is marked, and loses its rmap, after the flush
 * MUTANT rmap_before_mark	-
 *	the folio loses its rmap after the mark
 * MUTANT unlock_before_flush	-
 *	the page-table lock is held until the folio is marked
 * MUTANT no_mark		-
 *	the dirty bit that was taken is given to the folio
 * MUTANT no_flush		-
 *	the flush
 * MUTANT free_before_flush	-
 *	the reference of the entry is kept until after the flush
 * MUTANT stale_value		-
 *	the dirty bit is the one of the value that was exchanged
 */

#ifndef CPUS
#define CPUS	1	/* that store */
#endif
#ifndef ZAPS
#define ZAPS	1
#endif
#define STORES	3	/* in all */

/* The entry, its lock, and what CPUs have of it. */
bool present = true, writable = true, dirty;
bool locked;
bool tlb[CPUS], tlb_dirty[CPUS];

/* The folio. References: of the page cache, of the entry, of a gather, of writeback. */
bool folio_dirty, folio_locked, mapped = true;
byte refs = 2;
bool in_cache = true;

/* The number of the last store, in memory and on the disk. */
byte memory, disk;

bool truncated, zapping;

inline flush(c)
{
	atomic {
		tlb[c] = false;
		tlb_dirty[c] = false
	}
}

inline flush_all()
{
	flush(0);
#if CPUS > 1
	flush(1);
#endif
}

inline lock()
{
	atomic { !locked -> locked = true }
}

inline mark()
{
#ifndef no_mark
	atomic {
		printf("zap: folio is marked dirty\n");
		/* Without the folio lock that takes a page that cannot be truncated. */
		assert(in_cache);
		folio_dirty = true
	}
#else
	skip
#endif
}

inline remove_rmap()
{
	atomic {
		printf("zap: rmap is removed\n");
		mapped = false
	}
}

/* The page cache and nobody else has the folio, or not even that. */
inline put()
{
	refs--
}

proctype zap()
{
	bool was_dirty, was_present;
	byte zaps;

	do
	:: zaps < ZAPS ->
		zapping = true;
		/* walk/lock.rs */
		lock();
#ifdef stale_value
		was_dirty = dirty;
#endif
		/* PteTable::take() */
		atomic {
			was_present = present;
			if
			:: present ->
				printf("zap: entry is cleared, dirty %d\n", dirty);
				present = false;
				writable = false;
#ifndef stale_value
				was_dirty = dirty;
#endif
				dirty = false
			:: else -> was_dirty = false
			fi
		};
		if
		:: was_present && was_dirty ->
			/* LockedGather::drop(): what is owed is settled under the lock. */
#if defined(mark_before_flush)
			mark();
			remove_rmap();
#elif defined(rmap_before_mark)
			remove_rmap();
#elif defined(unlock_before_flush)
			locked = false;
#endif
zap_before_flush:
#ifndef no_flush
			flush_all();
			printf("zap: flushed\n");
#endif
#if defined(rmap_before_mark)
			mark();
#elif !defined(mark_before_flush)
			mark();
			remove_rmap();
#endif
#ifndef unlock_before_flush
			locked = false;
#endif
			put()
		:: was_present && !was_dirty ->
			/* No mark is owed: the page is kept until the gather ends. */
			remove_rmap();
			locked = false;
#ifdef free_before_flush
			put();
#endif
#ifndef no_flush
			flush_all();
			printf("zap: flushed\n");
#endif
#ifndef free_before_flush
			put();
#endif
		:: else -> locked = false
		fi;
		zapping = false;
		zaps++
	:: else -> break
	od
}

/* folio_clear_dirty_for_io(), page_vma_mkclean_one(), and the write itself. */
proctype writeback()
{
	bool flushes;

end:
	do
	:: atomic { (folio_dirty || (mapped && dirty)) && in_cache && !folio_locked ->
			folio_locked = true; refs++ };
		if
		:: mapped ->
			lock();
			atomic {
				flushes = present && (dirty || writable);
				if
				:: flushes ->
					printf("writeback: entry is made clean and read-only\n");
					folio_dirty = folio_dirty || dirty;
					dirty = false;
					writable = false
				:: else
				fi
			};
			if
			:: flushes -> flush_all()
			:: else
			fi;
			locked = false
		:: else
		fi;
		atomic {
			if
			:: folio_dirty ->
				printf("writeback: writes store %d\n", memory);
				folio_dirty = false;
				disk = memory
			:: else
			fi;
			folio_locked = false;
			flushes = false;
			put()
		}
	od
}

inline freed()
{
	/* Whoever reads the file gets what is on the disk. */
	assert(disk == memory);
	assert(!tlb[0]);
#if CPUS > 1
	assert(!tlb[1])
#endif
}

/* Clean, unmapped, and only the page cache has it. */
proctype reclaim()
{
end:
	do
	:: atomic { in_cache && !mapped && !folio_dirty && !folio_locked && refs == 1 ->
			printf("reclaim: page is freed, with store %d of %d\n", disk, memory);
			in_cache = false;
			refs = 0;
			freed() }
	:: atomic { !in_cache && !truncated && memory < STORES -> in_cache = true; refs = 1 }
	od
}

/* unmap_mapping_folio() and what follows it. */
proctype truncate()
{
end:
	atomic { in_cache && !folio_locked -> folio_locked = true };
	if
	:: mapped ->
		lock();
		atomic {
			if
			:: present ->
				present = false;
				writable = false;
				dirty = false;
				mapped = false;
				refs--;
				printf("truncate: entry is cleared\n")
			:: else
			fi
		};
		flush_all();
		locked = false
	:: else
	fi;
	atomic {
		printf("truncate: page leaves the page cache\n");
		assert(!mapped);
		truncated = true;
		in_cache = false;
		folio_dirty = false;
		folio_locked = false;
		disk = memory;
		refs--
	}
}

inline store()
{
	printf("cpu %d: store %d\n", c, memory + 1);
	memory++;
	if
	:: truncated -> disk = memory
	:: else
	fi
}

proctype cpu(byte c)
{
end:
	do
	:: atomic { memory < STORES && tlb_dirty[c] -> store() }
	:: atomic { memory < STORES && !tlb_dirty[c] && present && writable ->
			dirty = true;
			tlb[c] = true;
			tlb_dirty[c] = true;
			store() }
	:: atomic { memory < STORES && present && !writable && !locked ->
			/* A write fault marks the folio, as a disk file system does. */
			tlb[c] = false;
			tlb_dirty[c] = false;
			writable = true;
			folio_dirty = true }
	:: atomic { memory < STORES && !present && !locked && in_cache && !folio_locked && !tlb[c] ->
			/* A fault maps the page of the file again. */
			present = true;
			mapped = true;
			refs++ }
	:: atomic { present && !tlb[c] -> tlb[c] = true }	/* a load */
	:: atomic { tlb[c] -> tlb[c] = false; tlb_dirty[c] = false }
	od
}

/* All is quiet, and writeback finds nothing to write. */
proctype sync()
{
end:
	atomic {
		!folio_dirty && !folio_locked && !locked && !(mapped && dirty) && !zapping ->
		assert(disk == memory)
	}
}

init {
	atomic {
		run zap();
		run writeback();
		run reclaim();
		run truncate();
		run sync();
		run cpu(0);
#if CPUS > 1
		run cpu(1)
#endif
	}
}
